"""How trees split: drawn from a public seed and public bounds, never from rows.

T trees, B of them, M = L - 1 inner nodes of a tree in breadth-first order (the children of m are 2m+1 and 2m+2), L leaves,
N rows, n rows of a block, F features.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedround.learning.trees.spec import Trees
from fedround.privacy.noise import Stream
from fedround.values import canonical

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

_NUMBERS_AT_ONCE = 1 << 19      # comparisons that are made before they are used: they stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Splits:
    """At node m of tree t a row goes to the right if its feature `feature_TM` is above `threshold_TM`."""

    feature_TM: Int64
    threshold_TM: Float32

    def of(self, trees: slice) -> Splits:
        """Some of the trees."""
        return Splits(self.feature_TM[trees], self.threshold_TM[trees])


_TRIES = 4


@functools.lru_cache(maxsize=8)
def splits(trees: Trees) -> Splits:
    """Of all trees; the same everywhere. The first trees stay what they are when `rounds` grows.

    A node's feature is drawn by the chances of the axes, and its threshold evenly from what the splits above it leave of the
    feature's bounds. A feature of which they leave nothing is drawn again, a few times. Where a tree has only so many
    features (`features_per_tree`), those are drawn by the chances, and a node's evenly from them.
    """
    count, nodes = trees.trees, trees.leaves - 1
    low_F, high_F = (np.array([getattr(axis, side) for axis in trees.axes]) for side in ("low", "high"))
    either_F, chance_F = (np.array([getattr(axis, what) for axis in trees.axes]) for what in ("either", "chance"))
    below_F = np.cumsum(chance_F) / chance_F.sum()
    named = Trees(depth=trees.depth, seed=trees.seed, axes=trees.axes)
    said = canonical(named, without=frozenset({"features_per_tree"}))
    drawn_TMR = Stream(hashlib.sha256(b"fedround/trees\0" + said).digest()).random((count, nodes, _TRIES + 1))
    if (few := trees.features_per_tree) is None:
        tried_TMR = _by_chance(drawn_TMR[..., :-1], below_F)
    else:
        own_TA = _by_chance(Stream(hashlib.sha256(b"fedround/trees/few\0" + said).digest()).random((count, few)), below_F)
        place_TMR = (drawn_TMR[..., :-1] * few).astype(np.int64)
        tried_TMR = own_TA[np.arange(count)[:, None, None], place_TMR]
    feature_TM, threshold_TM = tried_TMR[..., 0].copy(), np.empty((count, nodes))
    for node in range(nodes):
        left_T, right_T = np.empty(count), np.empty(count)
        undecided_T = np.ones(count, np.bool_)
        for turn in range(_TRIES):
            found_T = tried_TMR[:, node, turn]
            low_T, high_T = _left_over(node, found_T, feature_TM, threshold_TM, low_F, high_F, either_F)
            now_T = undecided_T & ((high_T > low_T) | (turn == _TRIES - 1))
            feature_TM[now_T, node] = found_T[now_T]
            left_T[now_T], right_T[now_T] = low_T[now_T], high_T[now_T]
            undecided_T &= ~now_T
        threshold_TM[:, node] = left_T + drawn_TMR[:, node, -1] * (right_T - left_T)
    return Splits(feature_TM, threshold_TM.astype(np.float32))


def _by_chance(drawn: Float64, below_F: Float64) -> Int64:
    """Features, from numbers in [0, 1) and the chances, added up."""
    return np.asarray(below_F.searchsorted(drawn, side="right").clip(max=len(below_F) - 1), np.int64)


def _left_over(node: int, feature_T: Int64, feature_TM: Int64, threshold_TM: Float64, low_F: Float64, high_F: Float64,
               either_F: Bool) -> tuple[Float64, Float64]:
    """What the splits above a node leave of the bounds of a feature, for each tree."""
    low_T, high_T = low_F[feature_T], high_F[feature_T]
    while node:
        above, is_right = (node - 1) // 2, node % 2 == 0
        same_T, at_T = feature_TM[:, above] == feature_T, threshold_TM[:, above]
        if is_right:
            low_T = np.where(same_T, np.maximum(low_T, np.where(either_F[feature_T], high_T, at_T)), low_T)
        else:
            high_T = np.where(same_T, np.minimum(high_T, np.where(either_F[feature_T], low_T, at_T)), high_T)
        node = above
    return low_T, high_T


def leaves_of(some: Splits, features_nF: Float32) -> npt.NDArray[np.intp]:
    """In which leaf of each tree each row is, (B, n).

    All nodes are asked about all rows, and then the answers are chosen from: no row is looked at by itself.
    """
    trees, nodes = some.feature_TM.shape
    rows_Fn = np.ascontiguousarray(features_nF.T)
    right_BMn = (rows_Fn[some.feature_TM.ravel()] > some.threshold_TM.ravel()[:, None]).reshape(trees, nodes, -1)
    taken: list[Bool] = []
    code_Bn = np.zeros((trees, right_BMn.shape[2]), np.intp)
    first, width = 0, 1
    while first < nodes:
        level = right_BMn[:, first:first + width]
        for turn in taken:
            half = level.shape[1] // 2
            level = np.where(turn[:, None], level[:, half:], level[:, :half])
        taken.append(level[:, 0])
        code_Bn = 2 * code_Bn + level[:, 0]
        first, width = first + width, 2 * width
    return code_Bn


def blocks(some: Splits, rows: int) -> Iterator[slice]:
    """Rows 0 to `rows`, so many at a time that `leaves_of` needs little memory."""
    step = max(256, _NUMBERS_AT_ONCE // max(1, some.feature_TM.size))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))
