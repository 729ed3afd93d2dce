"""Least squares from noised products of columns: one round, and standard errors that know the noise.

Leading axes are repetitions; F factors (1 and the columns), the outcome apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedround.analytics.estimates import TERM, WIDTH, Estimate, Table, estimated
from fedround.analytics.readings import noise_of
from fedround.statistics import Factor, Moments, Release
from fedround.statistics.base import Float64
from fedround.statistics.products import symmetric

Solved = tuple[Float64, Float64]
_RANK, _ALONG = 1e-10, 0.1


def least_squares(release: Release, statistic: Moments, outcome: Factor, ridge: float = 0.0) -> Table:
    """Coefficients of `outcome` on the other columns, in columns' own units, with 95 % intervals for noise and sampling
    together. Exact least squares of the clipped columns if nothing was noised and `ridge` is 0.

    ridge: added to every standardised column's sum of squares, as a share of the records; the intercept is not shrunk.
    A coefficient that the records do not determine, since there are too few or columns say the same, is NaN.
    Not promised: that noise leaves the coefficients unbiased. Noise in the sums of squares shrinks them a little.
    """
    at = [one.name for one in statistic.of].index(outcome.name)
    columns = [one for one in statistic.of if one.name != outcome.name]

    def coefficients(sums: Float64) -> Float64:
        return _solved(symmetric(sums, len(statistic.of) + 1), at + 1, ridge, columns, outcome)[0]

    value_F, noise_F = estimated(release.table, noise_of(release), coefficients)
    sampling_F = _solved(symmetric(release.table, len(statistic.of) + 1), at + 1, ridge, columns, outcome)[1]
    half_F = np.hypot(noise_F, WIDTH * sampling_F)
    value_F = np.where(np.isnan(half_F), np.nan, value_F)
    names = ["intercept", *(one.name for one in columns)]
    return Table(f"least squares: {outcome.name}", (TERM, "coefficient"), tuple(
        Estimate((name,), value, value - half, value + half)
        for name, value, half in zip(names, value_F.tolist(), half_F.tolist(), strict=True)), "bars",
        ("Intervals are for noise and for sampling together.",))


def _solved(matrix: Float64, at: int, ridge: float, columns: list[Factor], outcome: Factor) -> Solved:
    """Coefficients in own units, (…, F), and their sampling standard errors."""
    keep = [place for place in range(matrix.shape[-1]) if place != at]
    normal, right, square = matrix[..., keep, :][..., keep], matrix[..., keep, at], matrix[..., at, at]
    count = np.maximum(matrix[..., 0, 0], 1.0)
    penalized = normal + count[..., None, None] * ridge * np.diag([0.0] + [1.0] * len(columns))
    inverse = np.linalg.pinv(penalized, hermitian=True)
    solved_F = (inverse @ right[..., None])[..., 0]
    left = square - 2 * (solved_F * right).sum(-1) + (solved_F * (normal @ solved_F[..., None])[..., 0]).sum(-1)
    variance = np.clip(left, 0, None) / np.maximum(count - len(keep), 1.0)
    own = outcome.half * to_own(columns)
    covariance = own @ (inverse @ normal @ inverse * variance[..., None, None]) @ own.T
    own_F = (own @ solved_F[..., None])[..., 0]
    own_F[..., 0] += outcome.middle
    own_F = np.where(_determined(penalized, own) & (matrix[..., :1, 0] > len(keep)), own_F, np.nan)
    return own_F, np.sqrt(np.clip(np.diagonal(covariance, axis1=-2, axis2=-1), 0, None))


def _determined(normal: Float64, own_FF: Float64) -> npt.NDArray[np.bool_]:
    """Which coefficients do not lie along what no record tells apart, (…, F)."""
    value, vector = np.linalg.eigh(normal)
    unknown = value <= _RANK * np.maximum(value[..., -1:], 1e-300)
    along = np.linalg.norm((own_FF @ vector) * unknown[..., None, :], axis=-1)
    return np.asarray(along < _ALONG * np.linalg.norm(own_FF, axis=-1))


def to_own(columns: Sequence[Factor]) -> Float64:
    """From coefficients of 1 and of standardised columns to those in own units, (F, F)."""
    matrix = np.diag([1.0, *(1 / one.half for one in columns)])
    matrix[0, 1:] = [-one.middle / one.half for one in columns]
    return matrix
