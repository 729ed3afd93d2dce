"""How a model decides about rows whose labels are known: whether its chances are what they say, what a threshold costs, and
which columns matter.

N rows.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedround.errors import ContractError
from fedround.fairness_of_groups import Interval, Share
from fedround.learning.tasks import MetricName
from fedround.learning.tasks.chances import CALIBRATION_BINS, alike, calibration_error, calibration_slope
from fedround.values import MAX_NUMBER, Value

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_WIDTH = 1.96
_SHOWN = tuple(round(0.05 * step, 2) for step in range(1, 20))


class Bin(Value):
    """Rows to which the model gives similar chances."""

    rows: Annotated[int, Field(ge=1)]
    predicted: Share
    """Their mean chance."""
    observed: Interval
    """Of how many it was true; the interval (Wilson's) is that of the sample, in 95 of 100 cases."""


class Reliability(Value):
    """Chances against what was true, in bins of equally many rows."""

    bins: tuple[Bin, ...]
    error: Share
    """The expected calibration error: the mean over rows of the distance between predicted and observed in their bin."""
    slope: float | None = None
    """`calibration_slope`: 1 if the chances are neither too far from one half nor too near."""


class ThresholdChoice(Value):
    """Decisions with one threshold: yes from this chance on."""

    threshold: Share
    selected: Share
    """The share that gets a yes."""
    recall: Share
    false_positives: Share
    precision: Share | None
    """None: nobody gets a yes."""
    cost: Annotated[float, Field(ge=0)]
    """For each row, where a false alarm costs 1."""


class ThresholdCosts(Value):
    """Thresholds and what they cost."""

    missed: Annotated[float, Field(gt=0)]
    """What a missed row with label 1 costs, where a false alarm costs 1."""
    shown: tuple[ThresholdChoice, ...]
    best: ThresholdChoice
    """The cheapest on these rows."""
    if_calibrated: Share
    """The threshold that would be the cheapest if the chances were what they say: 1 / (1 + missed)."""


class Permuted(Value):
    """How much worse the model is if a column's values change places between rows (Breiman 2001)."""

    column: Annotated[str, Field(max_length=200)]
    value: float
    """The mean loss of the metric over the repeats. Around 0, also below: the column is of no use, or others say the same."""
    std: Annotated[float, Field(ge=0)]
    """Over the repeats."""


class Pull(Value):
    """How far a column pulls the chance of single rows: its SHAP values (Lundberg and Lee 2017)."""

    column: Annotated[str, Field(max_length=200)]
    strength: Annotated[float, Field(ge=0)]
    """The mean of their lengths."""
    values: tuple[float, ...]
    """One for each row that was looked at. Above 0: its value in this column raises its chance, compared with others'."""


class Drop(Value):
    """How much worse the model is on held-out rows of the sites if a column's values come from public rows."""

    column: Annotated[str, Field(max_length=200)]
    value: float | None
    """None: the noise hides it."""
    margin: Annotated[float, Field(ge=0)] | None
    """In 95 of 100 repeats of the noise, no farther than this. None: without noise, or hidden."""


class AtSites(Value):
    """What sites said, together, of the columns: noised counts or sums over rows that they hold out."""

    sites: Annotated[int, Field(ge=1)]
    noise_std: Annotated[float, Field(ge=0)]
    """That every site added, beside one record."""
    public_rows: Annotated[int, Field(ge=1)]
    """From which values came."""
    worth: float | None
    """The metric of the rows as they are. None: the noise hides it."""
    drops: tuple[Drop, ...]
    """The largest first; those that are hidden last."""


class Explained(Value):
    """What public rows tell of one model, and what sites told of its columns."""

    round: Annotated[int, Field(ge=0, le=MAX_NUMBER)]
    metric: MetricName
    rows: Annotated[int, Field(ge=1)]
    reliability: Reliability | None
    """None if the score is no chance. For more than two classes: of the chance of the predicted class."""
    choices: ThresholdCosts | None
    """None unless there are two classes."""
    judged_rows: Annotated[int, Field(ge=1)]
    """On which columns were compared."""
    importance: tuple[Permuted, ...]
    """The most important first."""
    pulls: tuple[Pull, ...]
    """The strongest first."""
    at_sites: AtSites | None = None
    """None: they were not asked."""


def reliability(chance_N: Float64, truth_N: Int64) -> Reliability:
    """Raises ContractError for fewer rows than bins."""
    if len(chance_N) < CALIBRATION_BINS:
        raise ContractError(f"calibration needs at least {CALIBRATION_BINS} rows, got {len(chance_N)}")
    return Reliability(bins=tuple(_bin(chance_N[rows], truth_N[rows]) for rows in alike(chance_N)),
                       error=calibration_error(chance_N, truth_N), slope=calibration_slope(chance_N, truth_N))


def choices(chance_N: Float64, truth_N: Int64, missed: float) -> ThresholdCosts:
    """What thresholds cost. Raises ContractError unless `missed` is above zero and there are rows of both labels."""
    if not missed > 0 or not math.isfinite(missed):
        raise ContractError(f"a missed row costs {missed:g} false alarms: expected a number above 0")
    ones = int(truth_N.sum())
    if ones in (0, len(truth_N)):
        raise ContractError("a threshold needs rows of both labels")
    order = np.argsort(-chance_N, kind="stable")
    found_N = np.cumsum(truth_N[order])
    cost_N = missed * (ones - found_N) + np.arange(1, len(order) + 1) - found_N
    last_N = np.append(np.diff(chance_N[order]) != 0, True)         # equal chances are decided alike
    place = np.flatnonzero(last_N)[np.argmin(cost_N[last_N])]
    best = float(chance_N[order][place]) if cost_N[place] <= missed * ones else 1.0
    return ThresholdCosts(missed=missed, shown=tuple(_choice(chance_N, truth_N, at, missed) for at in _SHOWN),
                          best=_choice(chance_N, truth_N, best, missed), if_calibrated=1 / (1 + missed))


def _choice(chance_N: Float64, truth_N: Int64, threshold: float, missed: float) -> ThresholdChoice:
    yes_N = chance_N >= threshold
    found, flagged = int(truth_N[yes_N].sum()), int((1 - truth_N[yes_N]).sum())
    ones = int(truth_N.sum())
    return ThresholdChoice(threshold=threshold, selected=float(yes_N.mean()), recall=found / ones,
                           false_positives=flagged / (len(truth_N) - ones),
                           precision=found / (found + flagged) if yes_N.any() else None,
                           cost=(missed * (ones - found) + flagged) / len(truth_N))


def _bin(chance_B: Float64, truth_B: Int64) -> Bin:
    rows, share = len(truth_B), float(truth_B.mean())
    middle = (share + _WIDTH ** 2 / (2 * rows)) / (1 + _WIDTH ** 2 / rows)
    half = _WIDTH * math.sqrt(share * (1 - share) / rows + (_WIDTH / (2 * rows)) ** 2) / (1 + _WIDTH ** 2 / rows)
    return Bin(rows=rows, predicted=float(chance_B.mean()), observed=Interval(
        value=share, low=max(0.0, middle - half), high=min(1.0, middle + half)))
