"""How good a model is, in the field's numbers, and how far noise may have moved each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from fedround.values import Value

Share = Annotated[float, Field(ge=0, le=1)]
Explained = Annotated[float, Field(ge=-1e15, le=1)]
"""1: all of it; 0: as good as a constant; below 0: worse than that."""
Size = Annotated[float, Field(ge=0, le=1e15)]
HeadName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,29}$")]


MetricName = Annotated[str, Field(pattern=r"^([a-z][a-z0-9_]{0,29}\.)?[a-z][a-z0-9_]{0,29}$")]
"""Of one of `Metrics`, or of a head's."""


class _Numbers(Value):
    """Metrics by name, and those of several heads."""

    def known(self) -> dict[str, float]:
        """Those that are known, by name; a head's as "head.metric"."""
        own: dict[str, float] = self.model_dump(exclude={"rows", "heads"}, exclude_none=True)
        heads: Mapping[str, _Numbers] = getattr(self, "heads")  # noqa: B009 - both kinds have it, each of its own type
        return own | {f"{head}.{name}": value for head, one in heads.items() for name, value in one.known().items()}

    def of(self, metric: str) -> float | None:
        """By the metric's name; None: not known."""
        return self.known().get(metric)


class Metrics(_Numbers):
    """How good a model is; None: the task has no such metric, or the available numbers do not determine it.

    A task says which there are (`docs/tasks.md`).
    """

    words: ClassVar[dict[str, str]] = {
        "auc": "AUC", "recall_at_20_fpr": "recall at 20 % false positives", "pr_auc": "PR-AUC", "accuracy": "accuracy",
        "macro_f1": "macro-F1", "concordance": "concordance", "d2": "D² (explained deviance)", "r2": "R²",
        "mae": "mean absolute error", "rmse": "root mean square error", "brier": "Brier score", "log_loss": "log loss",
        "perplexity": "perplexity", "calibration_error": "calibration error"}
    digits: ClassVar[dict[str, int]] = {"auc": 4, "concordance": 4}
    lower_is_better: ClassVar[frozenset[str]] = frozenset({
        "mae", "rmse", "brier", "log_loss", "perplexity", "calibration_error"})

    auc: Share | None = None
    recall_at_20_fpr: Share | None = None
    pr_auc: Share | None = None
    accuracy: Share | None = None
    macro_f1: Share | None = None
    concordance: Share | None = None
    d2: Explained | None = None
    r2: Explained | None = None
    mae: Size | None = None
    rmse: Size | None = None
    brier: Share | None = None
    log_loss: Size | None = None
    perplexity: Size | None = None
    calibration_error: Share | None = None
    heads: dict[HeadName, Metrics] = Field(default_factory=dict)
    """Of each head, where there are several."""
    rows: Annotated[int, Field(ge=0)]

    def __str__(self) -> str:
        return "   ".join(f"{in_words(name)} {value:.{digits_of(name)}f}" for name, value in self.known().items())


class Margin(_Numbers):
    """How far noise may have moved each of `Metrics`: in 95 of 100 repeats of the noise, no farther than this.

    Which rows happen to be held out, and what the width of a bin hides, are not in it. None: the metric is not known.
    """

    auc: Share | None = None
    recall_at_20_fpr: Share | None = None
    pr_auc: Share | None = None
    accuracy: Share | None = None
    macro_f1: Share | None = None
    concordance: Share | None = None
    d2: Size | None = None
    r2: Size | None = None
    mae: Size | None = None
    rmse: Size | None = None
    brier: Share | None = None
    log_loss: Size | None = None
    perplexity: Size | None = None
    calibration_error: Share | None = None
    heads: dict[HeadName, Margin] = Field(default_factory=dict)


def margin_from(found: Metrics, repeated: Sequence[Metrics | None]) -> Margin:
    """How far the same metrics lie from `found` where the noise is drawn again: the 95 % quantile. A repeat that determines
    nothing is as far away as can be said.
    """
    own, heads = dict[str, float](), dict[str, dict[str, float]]()
    for metric, value in found.known().items():
        others = [None if one is None else one.of(metric) for one in repeated]
        apart = [1.0 if other is None else abs(other - value) for other in others]
        head, _, name = metric.rpartition(".")
        (heads.setdefault(head, {}) if head else own)[name] = float(np.quantile(apart, 0.95))
    return Margin.model_validate({**own, "heads": {head: Margin.model_validate(one) for head, one in heads.items()}})


def in_words(metric: str) -> str:
    """What a metric is called: "AUC", or "age: R²" of a head."""
    head, _, name = metric.rpartition(".")
    return f"{head}: {Metrics.words[name]}" if head else Metrics.words[name]


def digits_of(metric: str) -> int:
    """After the point."""
    return Metrics.digits.get(metric.rpartition(".")[2], 3)


def lower_is_better(metric: str) -> bool:
    """Whether less of it is better."""
    return metric.rpartition(".")[2] in Metrics.lower_is_better
