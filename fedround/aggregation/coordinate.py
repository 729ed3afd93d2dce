"""Coordinate-wise rules: their values, and each row's share of them.

Legend: K rows that a rule sees, C coordinates of a chunk, S of a sample.

Values are compared as float32, which is exact, and averaged in float64. So a mean of values is never outside their range.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import assert_never

import numpy as np
import numpy.typing as npt

from fedround.aggregation import networks
from fedround.aggregation.rows import Coordinates, Floats
from fedround.aggregation.rules import Bulyan, CoordinateMedian, Meamed, TrimmedMean, WeightedMedian, WeightedTrimmedMean

_MOST_ROWS_IN_A_NETWORK = 64
"""Above this number of rows, an ordinary sort is faster than the network, which needs n log² n comparators."""


_FEW = 1024


@dataclass(frozen=True)
class Middle:
    """The mean of every coordinate without its `drop` smallest and `drop` largest values. With the largest possible `drop`
    it is the median.
    """

    drop: int


@dataclass(frozen=True)
class Nearest:
    """The mean of the `keep` values of every coordinate that are nearest to its median. Of two equally near values, the
    smaller is taken.
    """

    keep: int


@dataclass(frozen=True)
class Weighed:
    """The weighted mean of every coordinate without a weight of `cut` at each end; the last value there counts in part. If
    nothing is left between the ends, the mean of the two values where they meet.

    weights: of the rows, as whole numbers, so that what is cut off is cut off exactly.
    """

    weights: tuple[int, ...]
    cut: int


Form = Middle | Nearest | Weighed
CoordinateRule = CoordinateMedian | TrimmedMean | WeightedMedian | WeightedTrimmedMean | Meamed | Bulyan


def form_of(rule: CoordinateRule, share_K: Floats) -> Form:
    """What the rule does on every coordinate of rows that weigh so much. Raises ToleranceError if too much of it may lie.

    For Bulyan this is the second half, on the rows that the first half selected.
    """
    rows = len(share_K)
    rule.check_weights(share_K.tolist())
    match rule:
        case WeightedMedian():
            weights = _whole(share_K)
            return Weighed(weights, (sum(weights) - 1) // 2)
        case WeightedTrimmedMean(f=f):
            weights = _whole(share_K)
            return Weighed(weights, min(sum(sorted(weights)[rows - f:]), (sum(weights) - 1) // 2))
        case CoordinateMedian():
            return Middle((rows - 1) // 2)
        case TrimmedMean(f=f):
            return Middle(f)
        case Meamed(f=f):
            return Nearest(rows - f)
        case Bulyan(f=f):
            return Nearest(rows - 2 * f)
        case _:
            assert_never(rule)


def _whole(share_K: Floats) -> tuple[int, ...]:
    """Shares as even numbers of parts of 2^-40: twice the half of any sum of them is that sum."""
    return tuple(2 * max(1, round(share * 2 ** 39)) for share in share_K.tolist())


class Kernel:
    """The values of a form on chunks of at most `width` coordinates, with scratch space of its own."""

    def __init__(self, form: Form, rows: int, width: int) -> None:
        self._form, self._rows = form, rows
        kept = (form.drop, rows - form.drop) if isinstance(form, Middle) else (0, rows)
        self._network = None
        if rows <= _MOST_ROWS_IN_A_NETWORK and not isinstance(form, Weighed):
            self._network = networks.selection_network(rows, *kept, ordered=isinstance(form, Nearest))
        self._spare_C = np.empty(width, np.float32)
        self._mean_C = np.empty(width)

    def __call__(self, y_KC: Coordinates) -> Floats:
        """(C,), to be used before the next call. Overwrites y_KC."""
        mean_C = self._mean_C[:y_KC.shape[1]]
        if isinstance(self._form, Weighed):
            return _weighed(self._form, y_KC, mean_C)
        rows = self._sorted(y_KC)
        if isinstance(self._form, Middle):
            kept: list[Coordinates] | list[Floats] = rows[self._form.drop:self._rows - self._form.drop]
        else:
            kept = _nearest(rows, self._form.keep)
        mean_C[:] = kept[0]
        for y_C in kept[1:]:
            mean_C += y_C
        mean_C /= len(kept)
        return mean_C

    def _sorted(self, y_KC: Coordinates) -> list[Coordinates]:
        if self._network is None:
            y_CK = np.ascontiguousarray(y_KC.T)     # many short sorts of neighbours beat one sort across far rows
            y_CK.sort(axis=1)
            y_KC[:] = y_CK.T
            return list(y_KC)
        rows = list(y_KC)
        networks.run(self._network, rows, self._spare_C[:y_KC.shape[1]])
        return rows


def _nearest(sorted_rows: list[Coordinates], keep: int) -> list[Floats]:
    """The `keep` sorted values that are nearest to their median.

    They are neighbours in the order. So their places have every residue modulo `keep` exactly once. Along the places of one
    residue, the distance to the median first falls and then rises.
    """
    rows = len(sorted_rows)
    y_KC = [y_C.astype(np.float64) for y_C in sorted_rows]
    median_C = (y_KC[(rows - 1) // 2] + y_KC[rows // 2]) / 2

    def nearer(one_C: Floats, other_C: Floats) -> Floats:
        return np.where(other_C - median_C < median_C - one_C, other_C, one_C)

    return [reduce(nearer, y_KC[residue::keep]) for residue in range(keep)]


def _weighed(form: Weighed, y_KC: Coordinates, mean_C: Floats) -> Floats:
    """A few coordinates at a time: their order and their weights take several times the room of the values."""
    for start in range(0, len(mean_C), _FEW):
        y, mean = y_KC[:, start:start + _FEW], mean_C[start:start + _FEW]
        order, kept = _kept(form, y)
        mean[:] = 0
        for y_C, kept_C in zip(np.take_along_axis(y, order, axis=0), kept, strict=True):
            mean += np.multiply(y_C, kept_C, out=np.zeros_like(mean), where=kept_C > 0)
        mean /= sum(form.weights) - 2 * form.cut
    return mean_C


def _kept(form: Weighed, y_KC: Coordinates) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """The rows in the order of their values, and how much of each one's weight counts, in that order, (K, C)."""
    order_KC = np.ascontiguousarray(np.argsort(np.ascontiguousarray(y_KC.T), axis=1, kind="stable").T)
    above_KC = np.cumsum(np.array(form.weights)[order_KC], axis=0)
    total = sum(form.weights)
    kept_KC = np.clip(above_KC, form.cut, total - form.cut)
    kept_KC[1:] -= kept_KC[:-1].copy()
    kept_KC[0] -= form.cut
    return order_KC, kept_KC


def shares(form: Form, y_KS: Coordinates) -> Floats:
    """The mean weight of each row in the values of a sample of coordinates: (K,), adding up to one."""
    rows, size = y_KS.shape
    if isinstance(form, Weighed):
        order_KS, kept_KS = _kept(form, y_KS)
        counted = np.bincount(order_KS.ravel(), weights=kept_KS.astype(np.float64).ravel(), minlength=rows)
        weighed_K: Floats = counted / counted.sum()
        return weighed_K
    kept = _picked(form, y_KS)
    share_K: Floats = np.bincount(kept.ravel(), minlength=rows) / (len(kept) * size)
    return share_K


def shares_of_each(form: Form, y_KC: Coordinates) -> Floats:
    """The weight of each row in the value of each coordinate: (K, C), adding up to one in each."""
    share_KC = np.zeros(y_KC.shape)
    if isinstance(form, Weighed):
        order_KC, kept_KC = _kept(form, y_KC)
        np.put_along_axis(share_KC, order_KC, kept_KC / kept_KC.sum(axis=0), axis=0)
    else:
        kept = _picked(form, y_KC)
        np.put_along_axis(share_KC, kept, 1 / len(kept), axis=0)
    return share_KC


def _picked(form: Middle | Nearest, y_KS: Coordinates) -> npt.NDArray[np.intp]:
    """The rows whose values are averaged, for each coordinate."""
    rows = len(y_KS)
    order_KS = np.argsort(y_KS, axis=0, kind="stable")
    if isinstance(form, Middle):
        return order_KS[form.drop:rows - form.drop]
    y_KS = np.take_along_axis(y_KS, order_KS, axis=0).astype(np.float64)
    far_KS = np.abs(y_KS - (y_KS[(rows - 1) // 2] + y_KS[rows // 2]) / 2)
    return np.take_along_axis(order_KS, np.argsort(far_KS, axis=0, kind="stable")[:form.keep], axis=0)
