"""The rules whose result is a weighted sum of updates, solved on inner products alone.

Legend: P points, K rows that a rule sees (see `geometry`); gram_KK their inner products, d2_KK their squared distances.

Exact ties are broken by site order, and nothing else depends on the order of sites. Rules that count liars (f) count
every row the same; the others use the agreed weights. Finite input never gives NaN.
"""

from __future__ import annotations

from typing import TypeAlias, assert_never

import numpy as np

from fedround.aggregation.geometry import Geometry
from fedround.aggregation.nearness import krum_scores, mean_of, minimum_diameter, nearest_to_pivot, remoteness, smallest
from fedround.aggregation.rows import Floats
from fedround.aggregation.rules import (
    CenteredClipping,
    DivideAndConquer,
    FLTrust,
    GeometricMedian,
    Krum,
    MinimumDiameter,
    MinimumSpectrum,
    MultiKrum,
    NearestToPivot,
    NormClipping,
    SpectralFilter,
    WeightedMean,
)
from fedround.aggregation.spectral import divide_and_conquer, minimum_spectrum, spectral_filter
from fedround.errors import ContractError

LinearRule: TypeAlias = (WeightedMean | Krum | MultiKrum | GeometricMedian | CenteredClipping | NormClipping | MinimumDiameter
                         | MinimumSpectrum | NearestToPivot | SpectralFilter | DivideAndConquer | FLTrust)

WEISZFELD_STEPS = 10_000

WEISZFELD_CHANGE = 1e-12
"""The geometric median has converged when no coefficient changes by more."""

WEISZFELD_FLOOR = 1e-8
"""Distances count as at least this much of the typical one: below it they are rounding."""


def solve(rule: LinearRule, geometry: Geometry) -> Floats:      # noqa: PLR0911, PLR0912 - one case for each rule
    """The coefficients, over points, of what `rule` makes of the rows, (P,). They add up to one.

    Raises ToleranceError, naming the theorem, if the cohort is too small; ContractError if `fltrust` has no root.
    """
    rule.check(len(geometry))
    match rule:
        case WeightedMean():
            return geometry.coefficients(geometry.share_K)
        case GeometricMedian():
            return geometry.coefficients(geometric_median(geometry))
        case NormClipping():
            return norm_clipping(geometry)
        case CenteredClipping(radius=radius, steps=steps):
            return centered_clipping(geometry, radius, steps)
        case FLTrust():
            return fltrust(geometry)
        case MinimumSpectrum(f=f):
            return geometry.coefficients(minimum_spectrum(geometry.gram_KK(), f))
        case SpectralFilter(f=f):
            return geometry.coefficients(spectral_filter(geometry.gram_KK(), f))
        case DivideAndConquer(f=f):
            return geometry.coefficients(divide_and_conquer(geometry.gram_KK(), f))
        case MultiKrum(f=f):            # before Krum, which it extends
            scores_K = krum_scores(geometry.squared_distances_KK(), f)
            return _mean_of(smallest(scores_K, len(geometry) - f), geometry)
        case Krum(f=f):
            return _mean_of(smallest(krum_scores(geometry.squared_distances_KK(), f), 1), geometry)
        case NearestToPivot(f=f):
            return _mean_of(nearest_to_pivot(geometry.squared_distances_KK(), f), geometry)
        case MinimumDiameter(f=f):
            return _mean_of(minimum_diameter(geometry.squared_distances_KK(), f), geometry)
        case _:
            assert_never(rule)


def bulyan_selection(geometry: Geometry, f: int) -> list[int]:
    """The K-2f rows that Bulyan selects, ascending: Krum's choice, repeated among the rows that remain.

    When fewer than f+3 rows remain, the nearest neighbour decides. Two rows that are each other's nearest then tie, and the
    one that is nearer to the whole cohort is taken. Promises nothing below Bulyan's K >= 4f+3, which its spec checks.
    """
    d2_KK = geometry.squared_distances_KK()
    far_K = d2_KK.sum(axis=1)
    remaining, chosen = list(range(len(d2_KK))), []
    for _ in range(len(d2_KK) - 2 * f):
        scores = krum_scores(d2_KK[np.ix_(remaining, remaining)], f)
        chosen.append(remaining.pop(int(np.lexsort((far_K[remaining], scores))[0])))
    return sorted(chosen)


def shrinking(norm_K: Floats, most: float) -> Floats:
    """What to multiply vectors of these norms with, so that none is longer than `most`: 1 where none need be."""
    return np.divide(most, norm_K, out=np.ones_like(norm_K), where=norm_K > most)


def norm_clipping(geometry: Geometry) -> Floats:
    """Coefficients of the weighted mean of the rows, none longer than their median norm."""
    norm_K = geometry.norms_K()
    return geometry.scaled(shrinking(norm_K, float(np.median(norm_K)))).coefficients(geometry.share_K)


def centered_clipping(geometry: Geometry, radius: float, steps: int) -> Floats:
    """Coefficients of centered clipping: `steps` times, a step by the weighted mean of the differences to all rows, each
    clipped to length `radius`.

    It starts at the point "centre" (the last round's result). In a first round there is none, and it starts at the origin.
    """
    centre_P = geometry.point("centre")
    if centre_P is None:
        centre_P = geometry.origin_P
    for _ in range(steps):
        pull_K = geometry.share_K * shrinking(geometry.distances_to(centre_P), radius)
        centre_P = (1 - pull_K.sum()) * centre_P + pull_K @ geometry.combos_KP
    return centre_P


def fltrust(geometry: Geometry) -> Floats:
    """Coefficients of the mean of the rows, scaled to the root's norm and weighted by their cosine to it (0 where negative).

    If no row has a positive cosine to the root, the result is the origin: the model does not change.
    """
    root_P = geometry.point("root")
    if root_P is None:
        raise ContractError("fltrust compares every update with the coordinator's own, and there is none: give it a root "
                            "set, or agree on a rule that needs none")
    arm_P = root_P - geometry.origin_P
    norm_K, root_norm = geometry.norms_K(), np.sqrt(max(0.0, float(arm_P @ geometry.gram_PP @ arm_P)))
    inner_K = (geometry.combos_KP - geometry.origin_P) @ geometry.gram_PP @ arm_P
    cosine_K = np.divide(inner_K, norm_K * root_norm, out=np.zeros_like(norm_K), where=norm_K * root_norm > 0)
    trust_K = np.clip(cosine_K, 0, 1)
    if trust_K.max() == 0:
        return geometry.origin_P
    factor_K = np.divide(root_norm, norm_K, out=np.zeros_like(norm_K), where=trust_K > 0)
    return geometry.scaled(factor_K).coefficients(trust_K / trust_K.sum())


def geometric_median(geometry: Geometry) -> Floats:
    """Weights of the point with the smallest weighted sum of distances to the rows, (K,): Weiszfeld's iteration, converged.

    If it needs more than 10,000 steps (when a row is only just the median), the last step is the result. Then the sum of
    distances is accurate to many digits, and the point to fewer.
    """
    share_K, d2_KK = geometry.share_K, geometry.squared_distances_KK()
    floor = WEISZFELD_FLOOR * _typical_distance(d2_KK)
    # From the middle half of the cohort: a row at 1e30 that began with weight would never lose it all.
    middle = nearest_to_pivot(d2_KK, (len(geometry) - 1) // 2)
    weight_K = np.zeros_like(share_K)
    weight_K[middle] = 1 / len(middle)
    for _ in range(WEISZFELD_STEPS):
        pull_K = share_K / np.maximum(geometry.distances_to(weight_K @ geometry.combos_KP), floor)
        before_K, weight_K = weight_K, pull_K / pull_K.sum()
        if np.abs(weight_K - before_K).max() < WEISZFELD_CHANGE:
            break
    return weight_K


def _typical_distance(d2_KK: Floats) -> float:
    """A positive distance that a minority cannot enlarge; 1 if all rows are the same."""
    typical = float(np.median(remoteness(d2_KK)))
    if typical == 0:                                        # most rows are the same
        typical = float(d2_KK.min(initial=np.inf, where=d2_KK > 0))
    return np.sqrt(typical) if np.isfinite(typical) else 1.0


def _mean_of(rows: list[int], geometry: Geometry) -> Floats:
    return geometry.coefficients(mean_of(rows, len(geometry)))
