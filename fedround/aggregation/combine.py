"""The work on every coordinate after the decision: a weighted sum of the points, or a coordinate-wise rule.

Legend: P numbers that are read, K rows that a rule sees, C coordinates of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedround.aggregation import coordinate
from fedround.aggregation.coordinate import Form
from fedround.aggregation.rows import Coordinates, Floats
from fedround.aggregation.sweep import Kernel, total

_Writer = Callable[[Coordinates, Floats, Coordinates], None]
"""Fills out_C from a chunk as it was read and as float64."""


@dataclass(frozen=True, eq=False)
class Combine:
    """Work: writes sum_p w_p x_p if there is no form (K = 1), else what the form makes of K weighted sums.

    If it `measures`, it yields squares and inner products with the written result, of every point and of the result itself:
    (2, P + 1), in float64. `norms_and_distances` reads them.
    """

    weights_KP: Floats
    form: Form | None
    measures: bool
    writes = True

    def scratch_bytes(self, chunk: int) -> int:
        """As `Work`."""
        rows, points = map(int, self.weights_KP.shape)
        own = 8 * 2 if self.form is None else 8 * rows + 4 * (3 * rows + 3)
        return chunk * (8 * (points + 1) + own)

    def norms_and_distances(self, slabs: Floats) -> Floats:
        """Of every point, (2, P), from the sums that a sweep returned: its length, and how far it lies from the result.

        A distance is right to 1e-8 of the lengths, which is less than the result's own rounding to float32. If some rows are
        not finite, only the norms are right.
        """
        square, product = total(slabs)
        with np.errstate(all="ignore"):
            apart_P = np.sqrt(np.maximum(square[:-1] - 2 * product[:-1] + square[-1], 0))
        return np.stack([np.sqrt(square[:-1]), apart_P])

    def kernel(self, chunk: int) -> Kernel:
        """As `Work`."""
        points = self.weights_KP.shape[1]
        both_QC, measured = np.empty((points + 1, chunk)), np.zeros((2, points + 1))        # the points, and then the result
        if self.form is None:
            write = _weighted_sum(self.weights_KP[0], chunk)
        else:
            write = _of_coordinates(self.form, self.weights_KP, chunk)

        def combine(x_PC: Coordinates, out_C: Coordinates) -> Floats:
            both = both_QC[:, :x_PC.shape[1]]
            both[:-1] = x_PC
            write(x_PC, both[:-1], out_C)
            if not self.measures:
                return measured[:0]
            both[-1] = out_C
            np.vecdot(both, both, out=measured[0])
            np.vecdot(both, both[-1], out=measured[1])
            return measured

        return combine


def _weighted_sum(weight_P: Floats, chunk: int) -> _Writer:
    """Each product is rounded separately and added in a fixed order. So, unlike with BLAS, the bytes are the same on every
    processor.
    """
    product_C, sum_C = np.empty(chunk), np.empty(chunk)

    def write(_: Coordinates, wide_PC: Floats, out_C: Coordinates) -> None:
        product, total = product_C[:len(out_C)], sum_C[:len(out_C)]
        np.multiply(wide_PC[0], weight_P[0], out=total)
        for wide, weight in zip(wide_PC[1:], weight_P[1:], strict=True):       # one product at a time stays in the cache
            np.multiply(wide, weight, out=product)
            np.add(total, product, out=total)
        out_C[:] = total

    return write


def _of_coordinates(form: Form, weights_KP: Floats, chunk: int) -> _Writer:
    """Unmixed rows are compared as they arrived. Mixed rows are float64 products, rounded to float32."""
    rows = len(weights_KP)
    y_KC, mixed_KC = np.empty((rows, chunk), np.float32), np.empty((rows, chunk))
    picks, values = as_picks(weights_KP), coordinate.Kernel(form, rows, chunk)

    def write(x_PC: Coordinates, wide_PC: Floats, out_C: Coordinates) -> None:
        y = y_KC[:, :len(out_C)]
        if picks is None:
            y[:] = np.matmul(weights_KP, wide_PC, out=mixed_KC[:, :len(out_C)])
        else:
            for row, point in enumerate(picks):
                y[row] = x_PC[point]
        out_C[:] = values(y)

    return write


def as_picks(weights_KP: Floats) -> list[int] | None:
    """The index of each row's point, if no row is a mixture; None if any is."""
    is_one = (weights_KP == 1).sum(axis=1) == 1
    is_pure = np.count_nonzero(weights_KP, axis=1) == 1
    return [int(point) for point in weights_KP.argmax(axis=1)] if (is_one & is_pure).all() else None
