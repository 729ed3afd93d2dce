"""A vector sum over records with a known L2 sensitivity, and Gaussian noise: what means, trees and regressions are made of.

A new sum is a class with `scale`, `size` and `contributions`: what one record adds. It promises no more than that; the bound
is kept here, whatever the records hold:

* a record with a number that is not finite adds nothing, and one that is longer than `scale` is cut to it;
* contributions are cut to whole cells of a public grid, towards zero, and added up as integers. So the sum is the same in any
  order and any partition of the records, and one record moves it by at most `scale`, in floating point too
  (`fedround.privacy.noise` says why this matters);
* the noise is whole cells and a half, so the set of possible answers does not depend on the records.

What is neither a statistic nor a plan's question (the sums of a tree, say) calls `noised_sum` itself, and charges
`GaussianCounts(noise_std)`.

N records, D numbers of the sum, K of them that one record adds to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from fedround.errors import ContractError
from fedround.privacy.noise import GRID, NoiseSource
from fedround.statistics.base import Evidence, Float64, Int64, NoisedSum

NUMBERS_AT_ONCE = 1 << 20
"""How many numbers of contributions are held in memory at a time."""

Whole = npt.NDArray[np.object_]
"""Python's whole numbers, which have no largest."""

_EXACT = 1 << 40                # cells of one scale without noise: a number is cut by less than a trillionth of it
_ROUNDING = 2.0 ** -30          # what float64 may do to a length, and far more
_LIMB = 2.0 ** 26               # cells are added in two parts of so many, which float64 adds up exactly


class RowsPart(NamedTuple):
    """What some of the records add: each its own row, whatever the other records are."""

    value_NK: Float64
    place_NK: Int64 | None = None
    """To which of the D numbers; no row names one twice. None: to each, in order (K = D)."""


class GaussianSum(NoisedSum):
    """A statistic that is such a sum; `fedround.statistics.moments` is an example.

    `noise_std` is relative: the noise on the sum has the standard deviation `noise_std * scale`.
    """

    room: ClassVar[float] = 1 - _ROUNDING

    def contributions(self, evidence: Evidence) -> Iterable[RowsPart]:
        """What each record adds, in records' own units. A record's row depends on that record and public values alone."""
        raise NotImplementedError

    def noised(self, evidence: Evidence, noise: NoiseSource) -> Float64:
        """As `NoisedSum`."""
        summed_D = noised_sum(self.contributions(evidence), math.prod(self.shape), self.scale, self.noise_std, noise)
        return summed_D.reshape(self.shape)


def noised_sum(parts: Iterable[RowsPart], size: int, scale: float, noise_std: float, noise: NoiseSource) -> Float64:
    """The sum of all contributions with Gaussian noise, (size,), in units of `scale`.

    scale: the longest contribution (L2), public; longer ones are cut to it. noise_std: of the noise on each number, in units
    of `scale`; what is drawn is more by one part in GRID / noise_std at most. 0: none, and the sum is exact to N / 2**40.
    Costs `GaussianCounts(noise_std)` for one record. Raises ContractError for a scale or noise that is not possible, and for
    rows that do not add to each of the numbers and do not say to which.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise ContractError(f"the longest contribution of a record must be finite and above 0, got {scale}")
    if noise_std != 0 and not 0 < noise_std <= GRID / 2:
        raise ContractError(f"noise on a sum must be above 0 and at most {GRID / 2:.0f}, got {noise_std}")
    cells_of_scale = _EXACT if noise_std == 0 else math.floor(GRID / noise_std * (1 - _ROUNDING))
    summed_D: Whole = np.zeros(size, dtype=object)
    for part in parts:
        if part.place_NK is None and part.value_NK.shape[1:] != (size,):        # one number would be added to all of them
            raise ContractError(f"records add {part.value_NK.shape[1:]} numbers each to a sum of {size}")
        summed_D += _added(_whole_cells(part.value_NK, scale, cells_of_scale), part.place_NK, size)
    halves_D = 2 * summed_D
    if noise_std != 0:
        halves_D += (2 * noise.normal(GRID, size)).astype(np.int64)
    return np.array([half / (2 * cells_of_scale) for half in halves_D], dtype=np.float64)


def in_blocks(count: int, width: int) -> Iterator[slice]:
    """Records 0 to count, so many at a time that rows of this width have NUMBERS_AT_ONCE numbers at most."""
    rows = max(1, NUMBERS_AT_ONCE // width)
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


def _whole_cells(value_NK: Float64, scale: float, cells_of_scale: int) -> Float64:
    """Whole cells towards zero; each row no longer than GRID / noise_std cells, which `_ROUNDING` keeps clear of."""
    value_NK = np.asarray(value_NK, dtype=np.float64)
    finite_N1 = np.isfinite(value_NK).all(axis=1, keepdims=True)
    share_NK = np.clip(np.where(finite_N1, value_NK, 0.0), -scale, scale) / scale
    length_N = np.sqrt(np.square(share_NK).sum(axis=1))
    too_long_N = length_N > 1 + _ROUNDING / 4
    share_NK[too_long_N] /= length_N[too_long_N, None]
    cells_NK: Float64 = np.trunc(share_NK * cells_of_scale)
    return cells_NK


def _added(cells_NK: Float64, place_NK: Int64 | None, size: int) -> Whole:
    """The sum, exactly, of at most 2**26 rows: each limb of a cell is added up in float64 below 2**53."""
    high_NK = np.trunc(cells_NK / _LIMB)
    high_D, low_D = (_bins(limb_NK, place_NK, size).astype(np.int64).astype(object)
                     for limb_NK in (high_NK, cells_NK - high_NK * _LIMB))
    added_D: Whole = high_D * int(_LIMB) + low_D
    return added_D


def _bins(limb_NK: Float64, place_NK: Int64 | None, size: int) -> Float64:
    added_D: Float64 = (limb_NK.sum(axis=0) if place_NK is None
                        else np.bincount(place_NK.ravel(), weights=limb_NK.ravel(), minlength=size).astype(np.float64))
    return added_D
