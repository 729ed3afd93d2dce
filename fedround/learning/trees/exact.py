"""Sums of rows that are the same in any order and any partition, with noise or without.

With noise it is the grid of `fedround.privacy.noise`: a row adds whole cells, never more than its bound, and the sum of whole
cells is exact.

Without noise the sites' sums should add up to what one site with all rows would have, to the last bit, although what travels
is float32, and is a mean. So a sum of whole cells is sent as `DIGITS` numbers: its digits to the base 2**12, from -2**11 to
2**11, the first one any number. Each digit's weighted mean over the sites is off by less than a quarter of a digit, and the
server rounds it (`total`).

This holds where every site's weight is its number of rows, the rule is the plain weighted mean, the federation has no more
than 1,000 sites and 2**25 rows. Elsewhere the digits add up to the mean as any float32 numbers do.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedround.learning.trees.spec import DIGITS

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

CELL = 2.0 ** -20
"""What a row's contribution is a multiple of, where nothing is noised."""

_BASE = 2.0 ** 12


def digits(cells_X: Float64, rows: int) -> Float32:
    """A mean over rows, from the sum in whole cells: (DIGITS, *X), the coarsest first, as parts that add up to it."""
    parts = np.empty((DIGITS, *cells_X.shape), np.float32)
    left_X, unit = cells_X, CELL
    for place in range(DIGITS - 1, 0, -1):
        more_X = np.rint(left_X / _BASE)
        parts[place] = (left_X - more_X * _BASE) * (unit / rows)
        left_X, unit = more_X, unit * _BASE
    parts[0] = left_X * (unit / rows)
    return parts


def mean(parts: Float32, weight: float | None) -> Float64:
    """The mean of all rows, (*X), from the weighted means of the sites' parts.

    weight: of these sites, all together; None: not known, so nothing is rounded.
    """
    if len(parts) == 1 or weight is None:
        return np.asarray(parts.astype(np.float64).sum(axis=0))
    units = CELL * _BASE ** np.arange(len(parts) - 1.0, -1, -1).reshape(-1, *[1] * (parts.ndim - 1))
    found = parts * (weight / units)
    whole = np.rint(found)
    if np.abs(found - whole).max() >= 0.25:     # somebody's weight is not its number of rows, or the rule is not the mean
        return np.asarray(parts.astype(np.float64).sum(axis=0))
    return np.asarray((whole * units).sum(axis=0) / weight)
