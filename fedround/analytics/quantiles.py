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
    NaN where there are no records.
    """
    cumulated = np.maximum.accumulate(np.clip(np.cumsum(leaf_L, axis=-1), 0, None), axis=-1)
    flat, leaves = cumulated.reshape(-1, cumulated.shape[-1]), leaf_L.shape[-1]
    edges = np.linspace(low, high, leaves + 1)
    found = np.full((len(flat), len(at)), np.nan)
    for row, one in enumerate(flat):
        if one[-1] > 0:
            found[row] = _inverse(np.concatenate([[0.0], one]) / one[-1], edges, at)
    return found.reshape(*leaf_L.shape[:-1], len(at))


def _inverse(share: Float64, edges: Float64, at: tuple[float, ...]) -> list[float]:
    """Where the cumulative share, linear between edges, reaches each of `at` first."""
    told = []
    for wanted in at:
        above = min(max(int(np.searchsorted(share, wanted, side="left")), 1), len(edges) - 1)
        width = share[above] - share[above - 1]
        told.append(float(edges[above - 1] + (edges[above] - edges[above - 1])
                          * min(max((wanted - share[above - 1]) / width if width > 0 else 0.0, 0.0), 1.0)))
    return told


def _pairs(count_K: Float64) -> Float64:
    summed: Float64 = count_K.reshape(*count_K.shape[:-1], -1, 2).sum(axis=-1)
    return summed
