"""How good a model is, in the field's numbers, and how far noise may have moved each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedround.values import Value

Float64 = npt.NDArray[np.float64]
Share = Annotated[float, Field(ge=0, le=1)]
Explained = Annotated[float, Field(ge=-1e15, le=1)]
"""1: all of it; 0: as good as a constant; below 0: worse than that."""
Size = Annotated[float, Field(ge=0, le=1e15)]
Number = Annotated[float, Field(ge=-1e15, le=1e15)]
HeadName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,29}$")]
MetricName = Annotated[str, Field(pattern=r"^([a-z][a-z0-9_]{0,29}\.)?[a-z][a-z0-9_]{0,29}$")]
"""Of one of `Metrics`, or of a head's."""

_REPEATS = 200


@dataclass(frozen=True)
class Shown:
    """How a metric is shown to people, and whether less of it is better."""

    words: str
    digits: int = 3
    """After the point."""
    lower_is_better: bool = False


class _Numbers(Value):
    """A number for each metric, and those of several heads; None: not known."""

    auc: Annotated[Share | None, Shown("AUC", digits=4)] = None
    recall_at_20_fpr: Annotated[Share | None, Shown("recall at 20 % false positives")] = None
    pr_auc: Annotated[Share | None, Shown("PR-AUC")] = None
    accuracy: Annotated[Share | None, Shown("accuracy")] = None
    macro_f1: Annotated[Share | None, Shown("macro-F1")] = None
    concordance: Annotated[Share | None, Shown("concordance", digits=4)] = None
    d2: Annotated[Explained | None, Shown("D² (explained deviance)")] = None
    r2: Annotated[Explained | None, Shown("R²")] = None
    mae: Annotated[Size | None, Shown("mean absolute error", lower_is_better=True)] = None
    rmse: Annotated[Size | None, Shown("root mean square error", lower_is_better=True)] = None
    brier: Annotated[Share | None, Shown("Brier score", lower_is_better=True)] = None
    log_loss: Annotated[Size | None, Shown("log loss", lower_is_better=True)] = None
    perplexity: Annotated[Size | None, Shown("perplexity", lower_is_better=True)] = None
    calibration_error: Annotated[Share | None, Shown("calibration error", lower_is_better=True)] = None
    objective: Annotated[Number | None, Shown("mean number")] = None
    heads: dict[HeadName, Self] = Field(default_factory=dict)
    """Of each head, where there are several."""

    def known(self) -> dict[str, float]:
        """Those that are known, by name; a head's as "head.metric"."""
        own: dict[str, float] = self.model_dump(exclude={"rows", "heads"}, exclude_none=True)
        return own | {f"{head}.{name}": value for head, one in self.heads.items() for name, value in one.known().items()}

    def of(self, metric: str) -> float | None:
        """By the metric's name; None: not known."""
        return self.known().get(metric)


class Metrics(_Numbers):
    """How good a model is; None: the task has no such metric, or the available numbers do not determine it.

    A task says which there are (`docs/tasks.md`).
    """

    rows: Annotated[int, Field(ge=0)]

    def __str__(self) -> str:
        return "   ".join(f"{in_words(name)} {value:.{shown(name).digits}f}" for name, value in self.known().items())


class Margin(_Numbers):
    """How far noise may have moved each of `Metrics`: in 95 of 100 repeats of the noise, no farther than this.

    Which rows happen to be held out, and what the width of a bin hides, are not in it. None: the metric is not known.
    """

    d2: Size | None = None
    r2: Size | None = None


SHOWN: Mapping[str, Shown] = {name: one for name, field in Metrics.model_fields.items()
                              for one in field.metadata if isinstance(one, Shown)}
"""By the metric's name, without its head's."""


def margin(judge: Callable[[Float64, float], Metrics | None], table: Float64, noise_std: float) -> Margin | None:
    """How far noise may have moved what `judge(table, noise_std)` says; None where that is None, or nothing is noised.

    The noise is drawn again around the numbers as they came, `_REPEATS` times, and always the same. A metric's margin is the
    95 % quantile of how far it moves. A repeat that determines nothing counts as 1 apart.
    """
    if noise_std == 0 or (found := judge(table, noise_std)) is None:
        return None
    draws = np.random.default_rng(0).normal(0.0, noise_std, (_REPEATS, *table.shape))
    repeated = [judge(table + noise, 0.0) for noise in draws]
    own, heads = dict[str, float](), dict[str, dict[str, float]]()
    for metric, value in found.known().items():
        others = [None if one is None else one.of(metric) for one in repeated]
        apart = [1.0 if other is None else abs(other - value) for other in others]
        head, _, name = metric.rpartition(".")
        (heads.setdefault(head, {}) if head else own)[name] = float(np.quantile(apart, 0.95))
    return Margin.model_validate({**own, "heads": {head: Margin.model_validate(one) for head, one in heads.items()}})


def shown(metric: str) -> Shown:
    """How a metric is shown, with or without a head's name before it."""
    return SHOWN[metric.rpartition(".")[2]]


def in_words(metric: str) -> str:
    """What a metric is called: "AUC", or "age: R²" of a head."""
    head, _, _ = metric.rpartition(".")
    return f"{head}: {shown(metric).words}" if head else shown(metric).words
