"""Principal components, and bounds for a recipe, from noised sums of columns.

F columns; leading axes are repetitions.
"""

from __future__ import annotations

import math

import numpy as np

from fedround.analytics.estimates import Table, estimated, listed
from fedround.analytics.readings import covariance, noise_of
from fedround.statistics import Moments, Release
from fedround.statistics.base import Float64


def components(release: Release, statistic: Moments, most: int) -> tuple[Table, Table]:
    """The share of the variance of each of the first principal components of the correlations, and its loadings: the largest
    of each is positive. Noise lifts small components, so what its interval holds at 0 says nothing.
    """
    names, most = [one.name for one in statistic.of], min(most, len(statistic.of))

    def shares(sums: Float64) -> Float64:
        value = np.linalg.eigvalsh(_correlations(sums, statistic))[..., ::-1]
        return np.asarray(value[..., :most] / len(names), dtype=np.float64)

    share_M, half_M = estimated(release.table, noise_of(release), shares)
    with np.errstate(divide="ignore", invalid="ignore"):
        _, vector_FF = np.linalg.eigh(_correlations(release.table, statistic))
    vector_FM = vector_FF[:, ::-1][:, :most]
    vector_FM *= np.sign(vector_FM[np.abs(vector_FM).argmax(axis=0), np.arange(most)])

    def loadings(sums: Float64) -> Float64:
        _, drawn = np.linalg.eigh(_correlations(sums, statistic))
        drawn = drawn[..., ::-1][..., :most]
        drawn = drawn * np.sign((drawn * vector_FM).sum(axis=-2, keepdims=True))
        return np.asarray(np.swapaxes(drawn, -1, -2).reshape(*drawn.shape[:-2], -1), dtype=np.float64)

    value_K, noise_K = estimated(release.table, noise_of(release), loadings)
    numbers = [str(place + 1) for place in range(most)]
    return (Table("principal components", ("component", "share of variance"),
                  listed([(one,) for one in numbers], share_M, half_M, 0, 1), "bars"),
            Table("loadings", ("component", "column", "loading"),
                  listed([(one, name) for one in numbers for name in names], value_K, noise_K, -1, 1)))


def bounds_for(means: Table, spreads: float = 3.0) -> dict[str, tuple[float, float]]:
    """Bounds of columns for a recipe: the mean of all sites and so many standard deviations to both sides, two digits each.
    They are made of noised numbers, so they are public; written into a recipe, they are the same at every site and for ever.

    means: a table of `readings.means` with standard deviations and without groups. A column that noise leaves nothing of is
    left out.
    """
    told = {one.words: one.value for one in means.estimates}
    return {column: (_rounded(told[column, "mean"] - spreads * sd), _rounded(told[column, "mean"] + spreads * sd))
            for (column, what), sd in told.items() if what == "sd" and math.isfinite(sd) and sd > 0}


def _correlations(sums: Float64, statistic: Moments) -> Float64:
    count = len(statistic.of)
    matrix = np.empty((*sums.shape[:-1], count, count))
    for one in range(count):
        for other in range(one, count):
            matrix[..., one, other] = matrix[..., other, one] = covariance(sums, statistic, one, other)
    spread = np.sqrt(np.clip(np.diagonal(matrix, axis1=-2, axis2=-1), 1e-9, None))
    return np.asarray(np.nan_to_num(matrix / spread[..., :, None] / spread[..., None, :]), dtype=np.float64)


def _rounded(number: float) -> float:
    return float(f"{number:.2g}")

