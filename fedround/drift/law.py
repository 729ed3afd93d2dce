"""How far two noised histograms are apart, and how far noise and chance alone would bring them.

The distance is the Jensen-Shannon distance (natural logarithm) of the projected tables, as Evidently computes it. Noise makes
it larger, and small tables more so; therefore no fixed threshold is right. The law under "both are of one distribution" is
simulated: records are drawn (multinomial), the declared Gaussian noise is added, and what comes out goes the same way.

Concept drift is a change of what is true, given a model's score. There one table is first given the other's number of records
in each cell of scores (`matched`), so that other records alone are no drift; and the law is that of one truth for each score,
with each table's own scores.

C cells, B draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fedround.simplex import onto_simplex

Float64 = npt.NDArray[np.float64]

MOST_VALUES = 50_000
"""As many values are rebuilt from a table at most: larger tables are scaled down to it."""
DRAWS = 2_000
_FIRST_DRAWS = 200       # that many settle whatever is not improbable
_IMPROBABLE = 0.02
_COUNTED = 20


@dataclass(frozen=True, eq=False)
class Noised:
    """A table of counts as it was released, or the sum of several."""

    count_C: Float64
    noise_std: float
    of_truth: bool = False
    """Whether only what is true, given the score, is compared: the first half of the cells counts by score what is not true,
    the second half what is.
    """

    def plus(self, other: Noised) -> Noised:
        """Both together."""
        return replace(self, count_C=self.count_C + other.count_C, noise_std=math.hypot(self.noise_std, other.noise_std))

    @property
    def records(self) -> int:
        """How many it seems to be about, at least one."""
        return max(1, round(float(self.count_C.sum())))


@dataclass(frozen=True)
class Compared:
    """Two tables, beside the law of noise and chance."""

    distance: float
    """Of the projected tables, 0 to sqrt(ln 2) = 0.83; noise is still in it."""
    usual: float
    """In 95 of 100 cases it would be at most this large without any drift."""
    p: float
    """How probable so large a distance is without drift."""
    estimate: float
    """The distance without what noise and chance add: its square, less the mean square without drift."""


def rebuilt(count_BC: Float64) -> Float64:
    """Whole numbers of at least 0 in place of noised counts, (…, C): the nearest table with the same total, at most
    `MOST_VALUES` altogether.
    """
    total_B = np.maximum(count_BC.sum(axis=-1, keepdims=True), 1.0)
    near_BC = onto_simplex(count_BC, total_B, axis=-1)
    return np.asarray(np.rint(near_BC * np.minimum(1.0, MOST_VALUES / total_B)))


def distance(one_BC: Float64, other_BC: Float64) -> Float64:
    """Jensen-Shannon distance of tables without negative numbers, (…,)."""
    p_BC, q_BC = _shares(one_BC), _shares(other_BC)
    middle_BC = (p_BC + q_BC) / 2
    square: Float64 = (_divergence(p_BC, middle_BC) + _divergence(q_BC, middle_BC)) / 2
    return np.asarray(np.sqrt(np.maximum(square, 0.0)))


def _shares(count_BC: Float64) -> Float64:
    total_B = count_BC.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(count_BC, total_B, out=np.full_like(count_BC, 1 / count_BC.shape[-1]), where=total_B > 0))


def _divergence(p_BC: Float64, q_BC: Float64) -> Float64:
    ratio_BC = np.where(p_BC > 0, p_BC, 1.0) / np.where(q_BC > 0, q_BC, 1.0)
    return np.asarray((p_BC * np.log(ratio_BC)).sum(axis=-1))


def matched(one_BC: Float64, other_BC: Float64) -> Float64:
    """The first table with as many records in each cell of scores as the other has. Where it has none, it says nothing: it is
    given the other's.
    """
    one_BTS, other_BTS = (table.reshape(*table.shape[:-1], 2, -1) for table in (one_BC, other_BC))
    has_BS, gets_BS = (table.sum(axis=-2, keepdims=True) for table in (one_BTS, other_BTS))
    found_BTS = np.where(has_BS > 0, one_BTS * (gets_BS / np.maximum(has_BS, 1)), other_BTS)
    return np.asarray(found_BTS.reshape(other_BC.shape))


def between(one: Noised, other: Noised) -> float:
    """The distance of two released tables."""
    return float(_apart(rebuilt(one.count_C), rebuilt(other.count_C), one.of_truth))


def _apart(one_BC: Float64, other_BC: Float64, of_truth: bool) -> Float64:
    return distance(matched(one_BC, other_BC) if of_truth else one_BC, other_BC)


def compare(one: Noised, other: Noised, generator: np.random.Generator, draws: int = DRAWS) -> Compared:
    """Whether two tables can be of one distribution.

    Above `_COUNTED` of the draws the probability is counted; below, it is read from a gamma law with the mean and the
    variance of the squared distances (a sum of squares of nearly normal numbers; Satterthwaite 1946).
    """
    first = _compared(one, other, generator, min(draws, _FIRST_DRAWS))
    return first if first.p > _IMPROBABLE or draws <= _FIRST_DRAWS else _compared(one, other, generator, draws)


def _compared(one: Noised, other: Noised, generator: np.random.Generator, draws: int) -> Compared:
    both_C = rebuilt(one.count_C + other.count_C)
    one_BC, other_BC = (_drawn(each, _without_drift(each, both_C), generator, draws) for each in (one, other))
    null_B = _apart(one_BC, other_BC, one.of_truth)
    found = between(one, other)
    larger = int((null_B >= found).sum())
    p = (larger + 1) / (draws + 1) if larger >= _COUNTED else _tail(found ** 2, null_B ** 2)
    square = max(0.0, found ** 2 - float((null_B ** 2).mean()))
    return Compared(found, float(np.quantile(null_B, 0.95)), min(1.0, p), math.sqrt(square))


def _without_drift(own: Noised, both_C: Float64) -> Float64:
    """Of which shares the records of a table are if nothing drifts, (C,)."""
    return _shares(matched(both_C, rebuilt(own.count_C)) if own.of_truth else both_C)


def _tail(square: float, null_B: Float64) -> float:
    from scipy.special import gammaincc

    mean, variance = float(null_B.mean()), float(null_B.var())
    if variance == 0 or mean == 0:
        return 1.0 if square <= mean else 0.0
    return float(gammaincc(mean ** 2 / variance, square * mean / variance))


def _drawn(like: Noised, share_C: Float64, generator: np.random.Generator, draws: int) -> Float64:
    count_BC = generator.multinomial(like.records, share_C / share_C.sum(), size=draws).astype(np.float64)
    return rebuilt(count_BC + like.noise_std * generator.standard_normal(count_BC.shape))


def interval(one: Noised, other: Noised, estimate: float, z: float, generator: np.random.Generator,
             draws: int = DRAWS) -> tuple[float, float]:
    """`z` standard errors around an estimated distance.

    The standard error is that of the square, of tables drawn from the two found ones.
    """
    one_BC, other_BC = (_drawn(each, _shares(rebuilt(each.count_C)), generator, draws) for each in (one, other))
    spread = float((_apart(one_BC, other_BC, one.of_truth) ** 2).std())
    return math.sqrt(max(0.0, estimate ** 2 - z * spread)), math.sqrt(estimate ** 2 + z * spread)


def holm(p: list[float], level: float) -> list[bool]:
    """Which of these are too improbable, if any false alarm among all of them may be as probable as `level` (Holm 1979)."""
    order = sorted(range(len(p)), key=lambda place: p[place])
    alarms = [False] * len(p)
    for rank, place in enumerate(order):
        if p[place] > level / (len(p) - rank):
            break
        alarms[place] = True
    return alarms
