"""From noised counts of decisions to rates of groups and the gaps between them, with intervals.

The federation's values are fairlearn's, on the possible counts nearest to the noised ones (`group_cells`). The intervals come
from draws: other people in the groups (Poisson counts), and other noise of the declared mechanism, both made possible in the
same way. They hold for the people that the held-out rows were drawn from.

The intervals of all gaps of a measure hold together: the largest error of any difference between two groups, in its own
standard deviations, is what the draws say (as Tukey's range test does it). So also the largest gap's interval holds, whose
value is too large by chance.

G groups, B draws.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedround.fairness_of_groups import COMPARES, RATED, Gap, GroupRates, Interval, Measure, Rated
from validation.group_cells import CountedGroup, Float64, possible

Bool = npt.NDArray[np.bool_]

CONFIDENCE = 0.95
DRAWS = 2_000
_SURE = 2.0
"""A denominator counts as large enough if it is so even without this many standard deviations of its noise."""

_OF: dict[Rated, tuple[tuple[int, int], tuple[tuple[int, int], ...]]] = {
    "selection": ((-1, 1), ((0, 0), (0, 1), (1, 0), (1, 1))), "recall": ((1, 1), ((1, 0), (1, 1))),
    "false_positives": ((0, 1), ((0, 0), (0, 1))), "precision": ((1, 1), ((0, 1), (1, 1)))}
"""The cell (truth, decision) that counts, and those that it is a share of; -1: of either truth."""


@dataclass(frozen=True)
class Found:
    """What counts say: of each group, and of each pair of groups that differs most."""

    rates: tuple[GroupRates, ...]
    gaps: tuple[Gap, ...]


@dataclass(frozen=True, eq=False)
class _Rate:
    """One rate of one attribute's groups: the value, whether it is told, and the errors that draws make."""

    value_G: Float64
    told_G: Bool
    error_BG: Float64


def judged(counted: Sequence[CountedGroup], smallest: int, generator: np.random.Generator, draws: int = DRAWS, *,
           by: Callable[[Float64], Mapping[Rated, Float64]] | None = None) -> Found:
    """Rates of groups and gaps between them. counted: one for each attribute, of the same people.

    smallest: of fewer records nothing is said. A gap is among groups of which something is said, of two at least. by: what
    computes the rates of possible counts; None: `by_fairlearn`. `shares` computes the same in a thousandth of the time.
    """
    stds = [one.noise_std for one in counted]
    nearest = possible([one.cells_G22 for one in counted], stds)
    drawn = possible(_drawn(nearest, stds, generator, draws), stds)
    found = {one.attribute: _rates(one, (by or by_fairlearn)(cells), cells, cells_B, smallest)
             for one, cells, cells_B in zip(counted, nearest, drawn, strict=True)}
    rates = tuple(_group(one, group, cells, found[one.attribute]) for one, cells in zip(counted, nearest, strict=True)
                  for group in range(len(one.groups)))
    return Found(rates, tuple(gap for measure in COMPARES for gap in _gaps(measure, counted, found)))


def _drawn(nearest: Sequence[Float64], stds: Sequence[float], generator: np.random.Generator, draws: int) -> list[Float64]:
    """What would be counted of other people from where these come from: the same people for every attribute."""
    people_B22 = generator.poisson(nearest[0].sum(axis=0), (draws, 2, 2))
    found = []
    for cells_G22, std in zip(nearest, stds, strict=True):
        split_BG22 = generator.normal(0.0, std, (draws, *cells_G22.shape))
        for truth, decision in np.ndindex(2, 2):
            cell_G = np.maximum(cells_G22[:, truth, decision], 1e-12)
            split_BG22[:, :, truth, decision] += generator.multinomial(people_B22[:, truth, decision], cell_G / cell_G.sum())
        found.append(split_BG22)
    return found


def together(counted: Sequence[CountedGroup]) -> CountedGroup:
    """Everybody as one group, from the attribute whose sum has the least noise."""
    quietest = min(counted, key=lambda one: len(one.groups) * one.noise_std ** 2)
    return CountedGroup("everybody", ("everybody",), quietest.cells_G22.sum(axis=0, keepdims=True),
                        quietest.noise_std * float(np.sqrt(len(quietest.groups))))


def shares(cells_G22: Float64) -> dict[Rated, Float64]:
    """The rates of each group."""
    return {rated: share(rated, cells_G22) for rated in RATED}


def share(rated: Rated, cells: Float64) -> Float64:
    """A rate of counts, (…, G, 2, 2) to (…, G); 0 of nobody is 0."""
    (truth, decision), _ = _OF[rated]
    top = cells[..., decision].sum(axis=-1) if truth == -1 else cells[..., truth, decision]
    rate: Float64 = top / np.maximum(_people(rated, cells), 1e-9)
    return np.clip(rate, 0.0, 1.0)


def _people(rated: Rated, cells: Float64) -> Float64:
    people: Float64 = np.sum([cells[..., truth, decision] for truth, decision in _OF[rated][1]], axis=0)
    return people


def _rates(one: CountedGroup, values: Mapping[Rated, Float64], cells_G22: Float64, cells_BG22: Float64,
           smallest: int) -> dict[Rated, _Rate]:
    return {rated: _Rate(
        values[rated], _people(rated, one.cells_G22) - _SURE * one.noise_std * np.sqrt(len(_OF[rated][1])) >= smallest,
        share(rated, cells_BG22) - share(rated, cells_G22)) for rated in RATED}


def by_fairlearn(cells_G22: Float64) -> dict[Rated, Float64]:
    """The rates of each group as fairlearn has them, of counts as weights; 0 of nobody is 0."""
    from fairlearn.metrics import MetricFrame, false_positive_rate, selection_rate, true_positive_rate
    from sklearn.metrics import precision_score

    def precision(truth_N: object, decision_N: object, sample_weight: object) -> float:
        return float(precision_score(truth_N, decision_N, sample_weight=sample_weight, zero_division=0.0))

    metrics = {"selection": selection_rate, "recall": true_positive_rate, "false_positives": false_positive_rate,
               "precision": precision}
    group_N, truth_N, decision_N = (place.ravel() for place in np.indices(cells_G22.shape))
    weight_N = np.maximum(cells_G22.ravel(), 1e-9)          # a group of nobody has no rate, and is not told
    frame = MetricFrame(metrics=metrics, y_true=truth_N, y_pred=decision_N, sensitive_features=group_N,
                        sample_params={name: {"sample_weight": weight_N} for name in metrics})
    return {rated: frame.by_group[rated].to_numpy(np.float64) for rated in RATED}


def _group(one: CountedGroup, group: int, cells_G22: Float64, found: Mapping[Rated, _Rate]) -> GroupRates:
    return GroupRates(attribute=one.attribute, group=one.groups[group], records=round(float(cells_G22[group].sum()), 1),
                      **{rated: _alone(found[rated], group) for rated in RATED})


def _alone(rate: _Rate, group: int) -> Interval | None:
    """One rate with an interval of its own."""
    if not rate.told_G[group]:
        return None
    value = float(rate.value_G[group])
    far = float(np.quantile(np.abs(rate.error_BG[:, group]), CONFIDENCE))
    return Interval(value=_rounded(value), low=_rounded(value - far), high=_rounded(value + far))


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two groups of an attribute, by one rate."""

    attribute: str
    groups: tuple[str, str]
    difference: float
    error_B: Float64

    @property
    def std(self) -> float:
        """Of the error."""
        return max(float(self.error_B.std()), 1e-12)


def _gaps(measure: Measure, counted: Sequence[CountedGroup], found: Mapping[str, Mapping[Rated, _Rate]]) -> list[Gap]:
    pairs = [pair for one in counted for rated in COMPARES[measure] for pair in _pairs(one, found[one.attribute][rated])]
    if not pairs:
        return []
    worst_B = np.max([np.abs(pair.error_B) / pair.std for pair in pairs], axis=0)
    far = float(np.quantile(worst_B, CONFIDENCE))
    gaps = []
    for one in counted:
        if mine := [pair for pair in pairs if pair.attribute == one.attribute]:
            largest = max(mine, key=lambda pair: abs(pair.difference))
            low, high = (max(abs(pair.difference) + side * far * pair.std for pair in mine) for side in (-1, 1))
            lower, upper = largest.groups if largest.difference >= 0 else largest.groups[::-1]
            gaps.append(Gap(measure=measure, attribute=one.attribute, groups=(lower, upper),
                            value=_rounded(abs(largest.difference)), low=_rounded(low), high=_rounded(high)))
    return gaps


def _pairs(one: CountedGroup, rate: _Rate) -> list[_Pair]:
    told = [int(group) for group in np.flatnonzero(rate.told_G)]
    return [_Pair(one.attribute, (one.groups[first], one.groups[second]),
                  float(rate.value_G[second] - rate.value_G[first]), rate.error_BG[:, second] - rate.error_BG[:, first])
            for first, second in itertools.combinations(told, 2)]


def _rounded(share: float) -> float:
    """Within [0, 1], to six places: no signed number hangs on the last bits of a sum."""
    return round(min(max(share, 0.0), 1.0), 6)
