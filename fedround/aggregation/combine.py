"""Pass 2: the result, coordinate by coordinate, of what pass 1 decided.

Legend: P numbers that are read, N updates (the first of them), K rows that a rule sees, C coordinates of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedround.aggregation import coordinate
from fedround.aggregation.coordinate import Form
from fedround.aggregation.rows import Coordinates
from fedround.aggregation.sweep import Floats, Kernel


@dataclass(frozen=True, eq=False)
class WeightedSum:
    """Work: writes sum_p w_p x_p, computed in float64. Yields nothing that is to be added up.

    Every w_p x_p is rounded by itself and added in the order of points: the same bytes on every processor.
    """

    weight_P: Floats
    writes = True

    def scratch_bytes(self, chunk: int) -> int:
        """As `Work`."""
        return 2 * 8 * chunk

    def kernel(self, chunk: int) -> Kernel:
        """As `Work`."""
        sum_C, term_C = np.empty((2, chunk))

        def combine(x_PC: Coordinates, out_C: Coordinates) -> Floats:
            width = x_PC.shape[1]
            total, term = sum_C[:width], term_C[:width]
            total.fill(0)
            for weight, x_C in zip(self.weight_P, x_PC, strict=True):
                if weight != 0:                         # 0 x infinity is NaN
                    np.multiply(x_C, weight, out=term)
                    np.add(total, term, out=total)
            out_C[:] = total
            return np.empty(0)

        return combine


@dataclass(frozen=True, eq=False)
class PerCoordinate:
    """Work: writes what a rule of coordinates makes of K rows. Yields the squared distance of each update to that.

    combos_KP: the rows that the rule sees, as combinations of what is read.
    Rows that are updates as they came are compared as they came; mixed rows are float64 products, rounded to float32.
    """

    form: Form
    combos_KP: Floats
    sites: int
    writes = True

    def scratch_bytes(self, chunk: int) -> int:
        """As `Work`."""
        rows, points = map(int, self.combos_KP.shape)
        return chunk * (4 * (3 * rows + 2) + 8 * (rows + points + 2))

    def kernel(self, chunk: int) -> Kernel:
        """As `Work`."""
        rows, points = self.combos_KP.shape
        y_KC, gap_C, wide_gap_C = np.empty((rows, chunk), np.float32), np.empty(chunk, np.float32), np.empty(chunk)
        x_scratch_PC, mixed_KC = np.empty((points, chunk)), np.empty((rows, chunk))
        values = coordinate.Kernel(self.form, rows, chunk)
        picks = as_picks(self.combos_KP)

        def combine(x_PC: Coordinates, out_C: Coordinates) -> Floats:
            width = x_PC.shape[1]
            y, gap, wide_gap = y_KC[:, :width], gap_C[:width], wide_gap_C[:width]
            if picks is None:
                x = x_scratch_PC[:, :width]
                x[:] = x_PC
                y[:] = np.matmul(self.combos_KP, x, out=mixed_KC[:, :width])
            else:
                for row, point in enumerate(picks):
                    y[row] = x_PC[point]
            out_C[:] = values(y)
            square_N = np.empty(self.sites)
            for n, x_C in enumerate(x_PC[:self.sites]):     # row by row: all rows at once would leave the cache
                np.subtract(x_C, out_C, out=gap)            # float32 differences, float64 sums
                wide_gap[:] = gap
                square_N[n] = wide_gap @ wide_gap
            return square_N

        return combine


def as_picks(combos_KP: Floats) -> list[int] | None:
    """Which points the rows are, if every row is a point as it came; None if any is a mixture."""
    is_one = (combos_KP == 1).sum(axis=1) == 1
    is_pure = np.count_nonzero(combos_KP, axis=1) == 1
    return [int(point) for point in combos_KP.argmax(axis=1)] if (is_one & is_pure).all() else None
