"""Which rows are near each other: what Krum, MoNNA and MDA choose, from squared distances alone.

Legend: K rows; d2_KK squared distances, symmetric, zero on the diagonal. Exact ties go to the first in site order.
"""

from __future__ import annotations

import numpy as np

from fedround.aggregation.cover import cover, is_coverable
from fedround.aggregation.rows import Floats


def smallest(value_K: Floats, count: int) -> list[int]:
    """Where the `count` smallest values are, ascending; of equal values the first."""
    return sorted(int(row) for row in np.argsort(value_K, kind="stable")[:count])


def krum_scores(d2_KK: Floats, f: int) -> Floats:
    """The sum of each row's squared distances to its K-f-2 nearest others, or to one if that is fewer."""
    others = np.sort(d2_KK, axis=1)[:, 1:]                  # without its own zero
    scores_K: Floats = others[:, :max(1, len(d2_KK) - f - 2)].sum(axis=1)
    return scores_K


def remoteness(d2_KK: Floats) -> Floats:
    """Each row's median squared distance to the others: a minority cannot make the middle of the cohort look remote."""
    rows = len(d2_KK)
    if rows == 1:
        return np.zeros(1)
    median_K: Floats = np.median(np.sort(d2_KK, axis=1)[:, 1:], axis=1)
    return median_K


def nearest_to_pivot(d2_KK: Floats, f: int) -> list[int]:
    """The K-f rows nearest to the least remote one, itself among them."""
    pivot = int(remoteness(d2_KK).argmin())
    return smallest(d2_KK[pivot], len(d2_KK) - f)


def minimum_diameter(d2_KK: Floats, f: int) -> list[int]:
    """The K-f rows with the smallest diameter, exactly.

    Rows farther apart than a given diameter are in conflict; the smallest diameter whose conflicts f rows can cover is
    found by bisection. A diameter is the distance of only two rows, so several sets often share the smallest one. Of these,
    sets without the most remote row are preferred, then sets without the second most remote, and so on.
    """
    diameters = np.unique(d2_KK)
    low, high = 0, len(diameters) - 1
    while low < high:
        middle = (low + high) // 2
        if is_coverable(d2_KK > diameters[middle], f):
            high = middle
        else:
            low = middle + 1
    most_remote_first = np.argsort(remoteness(d2_KK), kind="stable")[::-1]
    left_out = cover(d2_KK > diameters[low], f, most_remote_first.tolist()) or []
    return [row for row in range(len(d2_KK)) if row not in left_out]


def mean_of(rows: list[int], count: int) -> Floats:
    """The weights of the mean of some of `count` rows, (K,)."""
    weight_K = np.zeros(count)
    weight_K[rows] = 1 / len(rows)
    return weight_K
