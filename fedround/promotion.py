"""Which model may be used: its measurements, the policy, and the judgement from both.

A new kind of evidence is a field of `ModelEvidence`, a bound in `Policy`, and a line in `judge`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from fedround.archive import MAX_BYTES
from fedround.bundle import Form
from fedround.fairness_of_groups import GroupFairness, Measure
from fedround.learning.tasks import SHOWN, MetricName, Metrics, in_words, shown
from fedround.learning.triggers import Trigger
from fedround.privacy.spec import Privacy
from fedround.spoken import how_many
from fedround.values import MAX_NUMBER, Value

Stage = Literal["candidate", "production"]
Bound = Annotated[float, Field(gt=0, le=1e9)]
Quality = Annotated[float, Field(ge=-1e9, le=1e9)]
NOT_MEASURED = "not measured"


class Measured(Value):
    """A number with its interval. A gate passes if the whole interval is within the bound."""

    value: float
    low: float
    high: float
    round: Annotated[int, Field(ge=0, le=MAX_NUMBER)]
    """In which it was measured."""
    words: Annotated[str, StringConstraints(max_length=1000)]
    """What it is, for the card: attribute, groups, method, confidence."""

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f}), measured in round {self.round}: {self.words}"


class Performance(Value):
    """One form of a model under ONNX Runtime, on the coordinator's machine."""

    size_bytes: Annotated[int, Field(ge=1)]
    p95_ms: Bound
    """What 95 of 100 calls with a single row take at most, on one thread."""
    public: Metrics | None
    """On the public test set; None where there is none."""


class ModelEvidence(Value):
    """What is known of a model at the time of the decision."""

    privacy: Privacy
    epsilon: Annotated[float, Field(ge=0)] | None
    """The most that any site had spent on the run, and on those with whose models it began (`tasks.certificate`). None:
    without privacy, or not known.
    """
    worth: Annotated[str, StringConstraints(max_length=1000)] = ""
    """The run's promise in other words, if that is known."""
    float32: Performance
    int8: Performance
    difference: Annotated[float, Field(ge=0)]
    """The largest between the model and its ONNX form, over `checked_rows`; of an answer above 1, as a share of it."""
    checked_rows: Annotated[int, Field(ge=1)]
    at_sites: Metrics | None = None
    """On the rows that sites hold out, from noised counts."""
    fairness: GroupFairness | None = None
    """Between the groups that the federation watches."""
    drift: Measured | None = None
    """The largest shift of a feature."""
    trigger: Trigger | None = None
    """The strongest mark of a backdoor that was found on public rows; looked for if the policy bounds it."""

    def of(self, form: Form) -> Performance:
        """One of the two forms."""
        return self.int8 if form == "int8" else self.float32


class Policy(Value):
    """promotion.toml: what a model must be before anybody is asked. None: nothing is asked there."""

    form: Form = "float32"
    """Which form is used, and therefore judged: its quality, bytes and latency."""
    metric: MetricName = "auc"
    """One of the task's, "head.metric" where there are several heads."""
    at_least: Quality | None = None
    """For a metric of which more is better."""
    at_most: Quality | None = None
    """For a metric of which less is better."""
    below_production: Annotated[float, Field(ge=0, le=1e9)] | None = 0.01
    """How much worse than the model in production it may be."""
    max_epsilon: Bound | None = None
    max_bytes: Annotated[int, Field(ge=1, le=MAX_BYTES)] | None = None
    max_p95_ms: Bound | None = None
    max_int8_loss: Annotated[float, Field(ge=0, le=1e9)] | None = None
    """How much of the metric the 8-bit form may lose."""
    max_fairness_gap: Bound | None = None
    fairness_measure: Measure = "demographic_parity"
    """What may not differ between groups by more than `max_fairness_gap`."""
    max_drift: Bound | None = None
    max_trigger: Annotated[float, Field(gt=0, le=1)] | None = None
    """The largest share of public rows that setting `trigger_features` features to one value each may turn to one label."""
    trigger_features: Annotated[int, Field(ge=1, le=32)] = 4
    approval: Literal["person", "policy"] = "person"
    """Whether a person must say yes to production, or the bounds alone decide."""

    @model_validator(mode="after")
    def _check_metric(self) -> Self:
        if self.metric.rpartition(".")[2] not in SHOWN:
            raise ValueError(f"metric is '{self.metric}', expected one of {', '.join(SHOWN)}")
        wrong = "at_least" if shown(self.metric).lower_is_better else "at_most"
        if getattr(self, wrong) is not None:
            raise ValueError(f"of '{self.metric}' {'less' if wrong == 'at_least' else 'more'} is better: say "
                             f"{'at_most' if wrong == 'at_least' else 'at_least'} instead of {wrong}")
        return self


class Judged(Value):
    """One bound, and how a model stands to it."""

    what: str
    asked: str
    found: str
    passed: bool

    def __str__(self) -> str:
        return f"{self.what}: {self.found}, asked {self.asked}"


def judge(policy: Policy, evidence: ModelEvidence, production: ModelEvidence | None) -> tuple[Judged, ...]:
    """Every bound of the policy. production: what was measured of the model in that stage; None: there is none."""
    return tuple(_judged(policy, evidence, production))


def _judged(policy: Policy, evidence: ModelEvidence, production: ModelEvidence | None) -> Iterator[Judged]:
    used, known, less = evidence.of(policy.form), in_words(policy.metric), shown(policy.metric).lower_is_better
    reached = _metric(policy, used.public)
    if policy.at_least is not None:
        yield _at_least(known, policy.at_least, reached)
    if policy.at_most is not None:
        yield _at_most(known, policy.at_most, reached)
    before = None if production is None else _metric(policy, production.of(policy.form).public)
    if policy.below_production is not None and before is not None:
        beside = f"{known} beside production"
        yield (_at_most(beside, before + policy.below_production, reached) if less
               else _at_least(beside, before - policy.below_production, reached))
    if policy.max_int8_loss is not None:
        whole, small = _metric(policy, evidence.float32.public), _metric(policy, evidence.int8.public)
        yield _at_most(f"{known} lost with 8 bits", policy.max_int8_loss, None if whole is None or small is None
                       else (small - whole if less else whole - small))
    if policy.max_epsilon is not None:
        yield _at_most("epsilon spent", policy.max_epsilon, evidence.epsilon)
    if policy.max_bytes is not None:
        yield _at_most(f"bytes of the {policy.form} model", policy.max_bytes, used.size_bytes)
    if policy.max_p95_ms is not None:
        yield _at_most("p95 latency of one row, ms", policy.max_p95_ms, used.p95_ms)
    if policy.max_fairness_gap is not None:
        gap = None if evidence.fairness is None else evidence.fairness.gap(policy.fairness_measure)
        yield _at_most(f"largest gap between groups ({policy.fairness_measure.replace('_', ' ')}), upper end of its interval",
                       policy.max_fairness_gap, None if gap is None else gap.high)
    if policy.max_drift is not None:
        drift = evidence.drift
        yield _at_most("drift, upper end of its interval", policy.max_drift, None if drift is None else drift.high)
    if policy.max_trigger is not None:
        mark = evidence.trigger
        yield _at_most(f"share of public rows that {how_many(policy.trigger_features, 'feature', 'turns', 'turn')} to one "
                       "label", policy.max_trigger,
                       None if mark is None else mark.share)


def _metric(policy: Policy, found: Metrics | None) -> float | None:
    return None if found is None else found.of(policy.metric)


def _at_least(what: str, bound: float, found: float | None) -> Judged:
    return Judged(what=what, asked=f"at least {bound:.6g}", found=_said(found), passed=found is not None and found >= bound)


def _at_most(what: str, bound: float, found: float | None) -> Judged:
    return Judged(what=what, asked=f"at most {bound:.6g}", found=_said(found), passed=found is not None and found <= bound)


def _said(found: float | None) -> str:
    return NOT_MEASURED if found is None else f"{found:.6g}"
