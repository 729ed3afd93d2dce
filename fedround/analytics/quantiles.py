"""Quantiles from noised counts of a binary tree, made consistent first (Hay et al. 2010, doi 10.14778/1920841.1920970).

L leaves; leading axes are repetitions and groups.
"""

from __future__ import annotations

import numpy as np

from fedround.statistics.base import Float64


def consistent(node_K: Float64, depth: int) -> Float64:
    """The leaves' counts, (…, L), that fit all noised nodes best (least squares): every node is then the sum of its leaves.

    node_K: (…, 2^(depth+1) - 2), level by level without the root, noised alike.
    """
    levels = [node_K[..., 2 ** level - 2:2 ** (level + 1) - 2] for level in range(1, depth + 1)]
    best = [levels[-1]]                         # upwards: a node's own count and its children's, by their variances
    for height, level in enumerate(reversed(levels[:-1]), start=2):
        own = (2 ** height - 2 ** (height - 1)) / (2 ** height - 1)
        best.append(own * level + (1 - own) * _pairs(best[-1]))
    best.reverse()
    fitted = best[0]
    for level in best[1:]:                      # downwards: what a parent's count adds is shared by its children
        fitted = level + np.repeat((fitted - _pairs(level)) / 2, 2, axis=-1)
    return fitted


def quantiles(leaf_L: Float64, at: tuple[float, ...], low: float, high: float) -> Float64:
    """The values below which these shares of records lie, (…, len(at)); the counts are taken to be even within a leaf.

    leaf_L: (…, L). A cumulative count that noise made fall stays level, so a larger share never has a smaller quantile.
    NaN where the counts add up to no records: noise alone has no quantiles.
    """
    there = leaf_L.sum(axis=-1, keepdims=True) > 0
    cumulated = np.maximum.accumulate(np.clip(np.cumsum(leaf_L, axis=-1), 0, None), axis=-1)
    whole = cumulated[..., -1:]
    share_E = np.concatenate([np.zeros_like(whole), cumulated / np.where(there & (whole > 0), whole, np.nan)], axis=-1)
    return np.stack([_inverse(share_E, one, low, high) for one in at], axis=-1)


def _inverse(share_E: Float64, wanted: float, low: float, high: float) -> Float64:
    """Where the cumulative share, linear between edges, reaches `wanted` first, (…,). share_E: at each edge, (…, L + 1)."""
    leaves = share_E.shape[-1] - 1
    above = np.clip((share_E < wanted).sum(axis=-1, keepdims=True), 1, leaves)
    before, after = (np.take_along_axis(share_E, place, axis=-1)[..., 0] for place in (above - 1, above))
    width = after - before
    part = np.clip(np.where(width > 0, (wanted - before) / np.where(width > 0, width, 1.0), 0.0), 0, 1)
    found: Float64 = np.where(np.isnan(after), np.nan, low + (above[..., 0] - 1 + part) * (high - low) / leaves)
    return found


def _pairs(count_K: Float64) -> Float64:
    summed: Float64 = count_K.reshape(*count_K.shape[:-1], -1, 2).sum(axis=-1)
    return summed
