"""The values that cross a boundary: one type each, frozen, strict, unknown keys refused.

Everything here can be written as JSON and read back unchanged. Nothing here holds a tensor, a record or a secret.
Units are in the names (`deadline_s`, `size_bytes`); `epsilon` is privacy spent, `delta_dp` a probability, and `delta`
alone is a model change.
"""

from __future__ import annotations

import itertools
import json
from enum import StrEnum
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from fedround.errors import ContractError

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
"""A federation, run, site or recipe: lower-case letters, digits and inner hyphens, at most 40. Safe in a key or a path."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 in lower-case hexadecimal."""

PublicKey = Annotated[str, StringConstraints(pattern=r"^ed25519:[0-9a-f]{64}$")]
"""An Ed25519 public key."""

CheckId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_.-]{1,80}$")]
"""The id of one check of a data contract; agreed beforehand, so that naming it tells nothing about a record."""

PositiveFloat = Annotated[float, Field(gt=0)]


class Value(BaseModel):
    """A frozen, strict value: unknown keys, NaN and silent conversions are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


V = TypeVar("V", bound=Value)


def parse(kind: type[V], data: bytes | str | dict[str, Any], source: str) -> V:
    """Read `data` (JSON text, or a mapping as TOML gives it) as `kind`.

    source: what the data is, in words a person knows ("federation file banks.toml").
    Raises ContractError with one line per problem, naming the key; the offending value is not repeated.
    """
    try:
        text = json.dumps(data) if isinstance(data, dict) else data
        return kind.model_validate_json(text)
    except (ValidationError, TypeError) as error:
        raise ContractError(f"{source}: {_in_words(error)}") from None


def _in_words(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return str(error)
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in problem["loc"]) or "the whole document"
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown key '{where}': remove it, or check its spelling")
        elif problem["type"] == "missing":
            lines.append(f"'{where}' is missing")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"'{where}': {message[0].lower()}{message[1:]}")
    return "; ".join(lines)


# -- what a federation agrees on ---------------------------------------------------------------------------------------


class WeightedMean(Value):
    """The mean with the weights of the federation file. One liar moves it as far as he likes."""

    name: Literal["weighted_mean"] = "weighted_mean"


class CoordinateMedian(Value):
    """The median of every coordinate; every site counts the same."""

    name: Literal["coordinate_median"] = "coordinate_median"


class TrimmedMean(Value):
    """The mean of every coordinate without its `f` smallest and `f` largest values; every site counts the same."""

    name: Literal["trimmed_mean"] = "trimmed_mean"
    f: Annotated[int, Field(ge=0, le=49, description="how many sites may lie")]


Rule = Annotated[WeightedMean | CoordinateMedian | TrimmedMean, Field(discriminator="name")]


class FedAvg(Value):
    """Server step: model += learning_rate * velocity, velocity = momentum * velocity + aggregate."""

    name: Literal["fedavg"] = "fedavg"
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0


class LocalTraining(Value):
    """What one site does in one round: `local_steps` steps of SGD on batches of (expected) `batch_size` rows."""

    local_steps: Annotated[int, Field(ge=1, le=10_000)] = 10
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 128
    learning_rate: Annotated[float, Field(gt=0, le=100)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0


class RecordPrivacy(Value):
    """DP-SGD: each record's gradient is clipped to `clip_norm`; noise is calibrated by each site to its own rows.

    The promise: over `rounds` rounds of a run, what leaves a site is (epsilon, delta_dp)-differentially private for
    adding or removing one record of that site (Poisson sampling; PLD accountant of dp_accounting).
    """

    unit: Literal["record"] = "record"
    epsilon: Annotated[float, Field(gt=0, le=100)]
    delta_dp: Annotated[float, Field(gt=0, lt=0.1)]
    clip_norm: Annotated[float, Field(gt=0, le=1000)] = 1.0
    rounds: Annotated[int, Field(ge=1, le=100_000, description="rounds that the budget must last for")]


class NoPrivacy(Value):
    """No noise. A site's policy must allow this by name; for comparisons and for data that are public anyway."""

    unit: Literal["none"] = "none"


Privacy = Annotated[RecordPrivacy | NoPrivacy, Field(discriminator="unit")]


class LocalEvaluation(Value):
    """Sites score the base model on their own validation rows; a histogram of scores leaves, noised (Gaussian)."""

    bins: Annotated[int, Field(ge=2, le=1000)] = 10
    noise_std: Annotated[float, Field(ge=0, le=10_000)] = 10.0


class SiteEntry(Value):
    """One member, as the coordinator enrolled it. The weight is agreed here; nothing a site says later changes it."""

    name: Name
    key: PublicKey
    weight: PositiveFloat


class Federation(Value):
    """The federation file: who takes part and what every round asks for. Signed by the coordinator."""

    name: Name
    coordinator: PublicKey
    recipe: Name
    recipe_digest: Digest
    contract_digest: Digest
    quorum: Annotated[int, Field(ge=1, le=1000)]
    deadline_s: Annotated[int, Field(ge=1, le=604_800)] = 600
    training: LocalTraining = LocalTraining()
    privacy: Privacy
    evaluation: LocalEvaluation = LocalEvaluation()
    rule: Rule = WeightedMean()
    optimizer: FedAvg = FedAvg()
    sites: Annotated[tuple[SiteEntry, ...], Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _check_members(self) -> Self:
        names = [site.name for site in self.sites]
        keys = [site.key for site in self.sites] + [self.coordinator]
        if len(set(names)) < len(names):
            raise ValueError("two sites have the same name")
        if len(set(keys)) < len(keys):
            raise ValueError("two members have the same key; every member makes its own with 'fedround site init'")
        if self.quorum > len(names):
            raise ValueError(f"quorum {self.quorum} can never be met by {len(names)} sites")
        if isinstance(self.rule, TrimmedMean) and self.quorum < 2 * self.rule.f + 1:
            raise ValueError(f"trimmed_mean with f={self.rule.f} needs quorum >= {2 * self.rule.f + 1}")
        return self

    def site(self, name: str) -> SiteEntry:
        """The member called `name`. Raises ContractError if there is none."""
        for site in self.sites:
            if site.name == name:
                return site
        raise ContractError(f"federation '{self.name}' has no site '{name}'; its members are: "
                            + ", ".join(site.name for site in self.sites))


# -- tensors, by description -------------------------------------------------------------------------------------------


class TensorSpec(Value):
    """One float32 tensor of the model."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,200}$")]
    shape: tuple[Annotated[int, Field(ge=1, le=2**31)], ...]


class Payload(Value):
    """The bytes of a tensor file, by content."""

    sha256: Digest
    size_bytes: Annotated[int, Field(ge=1)]


# -- one round ---------------------------------------------------------------------------------------------------------


class Purpose(StrEnum):
    """What a plan asks for."""

    TRAIN = "train"
    EVALUATE = "evaluate"


class RoundPlan(Value):
    """What one round asks of its cohort. Signed by the coordinator; a site does nothing that no plan asks for."""

    federation: Name
    federation_digest: Digest
    run: Name
    round: Annotated[int, Field(ge=1, le=99_999)]
    attempt: Annotated[int, Field(ge=1, le=99)] = 1
    purpose: Purpose
    parent: Digest
    base_model: Digest
    tensors: tuple[TensorSpec, ...]
    recipe: Name
    recipe_digest: Digest
    contract_digest: Digest
    cohort: tuple[Name, ...]
    quorum: int
    deadline_s: int
    training: LocalTraining
    privacy: Privacy
    evaluation: LocalEvaluation
    score_edges: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()
    """Where a bin of scores ends and the next begins: quantiles of the base model's scores on the coordinator's public
    test set, so that every bin tells something. Empty: bins of equal width."""
    rule: Rule
    optimizer: FedAvg

    @model_validator(mode="after")
    def _check_edges(self) -> Self:
        if self.score_edges and len(self.score_edges) != self.evaluation.bins - 1:
            raise ValueError(f"{self.evaluation.bins} bins have {self.evaluation.bins - 1} edges between them")
        if any(later < earlier for earlier, later in itertools.pairwise(self.score_edges)):
            raise ValueError("score_edges must ascend")
        return self


class DpSgd(Value):
    """The mechanism a site applied: `steps` Poisson-sampled Gaussian steps."""

    kind: Literal["dp_sgd"] = "dp_sgd"
    noise_multiplier: PositiveFloat
    clip_norm: PositiveFloat
    sampling_rate: Annotated[float, Field(gt=0, le=1)]
    steps: Annotated[int, Field(ge=1)]


class GaussianCounts(Value):
    """The mechanism on a histogram: every count got Gaussian noise; one record changes one count by one."""

    kind: Literal["gaussian_counts"] = "gaussian_counts"
    noise_std: PositiveFloat


class NoMechanism(Value):
    """Nothing was noised."""

    kind: Literal["none"] = "none"


Mechanism = Annotated[DpSgd | GaussianCounts | NoMechanism, Field(discriminator="kind")]


class ScoreCounts(Value):
    """Noised counts of the base model's scores on a site's validation rows, per true label.

    Bin b holds the scores from its lower edge up to, and without, its upper one; the edges stand in the plan. Counts may
    be negative: noise is not undone.
    """

    positives: tuple[float, ...]
    negatives: tuple[float, ...]
    noise_std: Annotated[float, Field(ge=0)]

    @model_validator(mode="after")
    def _check_same_bins(self) -> Self:
        if len(self.positives) != len(self.negatives):
            raise ValueError("positives and negatives must have the same number of bins")
        return self


class Reason(StrEnum):
    """Why a site said no."""

    POLICY = "policy"            # the site's policy does not allow what the plan asks
    CONTRACT = "contract"        # the site's rows do not meet the data contract
    BUDGET = "budget"            # the privacy ledger would be overspent
    DATA = "data"                # the data file is missing, unreadable or has too few rows


class Answer(Value):
    """What every answer of a site to a plan carries."""

    federation: Name
    run: Name
    round: int
    site: Name
    plan: Digest


class Update(Answer):
    """A site's noised model delta, by description; the tensors lie beside it."""

    kind: Literal["update"] = "update"
    base_model: Digest
    payload: Payload
    mechanism: Mechanism
    evaluation: ScoreCounts | None = None
    epsilon: Annotated[float, Field(ge=0)] | None = None
    """Spent on this run so far at the plan's delta_dp, rounded up; None without privacy."""
    ledger_head: Digest


class EvaluationAnswer(Answer):
    """A site's answer to a plan that only asks for an evaluation."""

    kind: Literal["evaluation"] = "evaluation"
    evaluation: ScoreCounts
    epsilon: Annotated[float, Field(ge=0)] | None = None
    ledger_head: Digest


class Refusal(Answer):
    """A site's signed "no": a reason code, the failed checks by id, and never a value."""

    kind: Literal["refusal"] = "refusal"
    reason: Reason
    checks: tuple[CheckId, ...] = ()
    detail: Annotated[str, StringConstraints(max_length=300)] = ""


SiteAnswer = Update | EvaluationAnswer | Refusal


# -- what the coordinator commits --------------------------------------------------------------------------------------


class Checkpoint(Value):
    """What a model is: enough to load it and to know what it was trained under."""

    federation: Name
    run: Name
    round: Annotated[int, Field(ge=0)]
    model: Payload
    tensors: tuple[TensorSpec, ...]
    recipe: Name
    recipe_digest: Digest
    privacy: Privacy
    tool_version: str


class CommittedUpdate(Value):
    """An update that entered the aggregate."""

    site: Name
    answer: Digest
    payload: Digest
    weight: PositiveFloat
    """The agreed weight. Rules that count every site the same ignore it."""
    norm: Annotated[float, Field(ge=0)]
    """L2 norm of the update."""
    distance: Annotated[float, Field(ge=0)]
    """L2 distance of the update to the aggregate."""


class CommittedRefusal(Value):
    """A site's "no", kept for the record."""

    site: Name
    answer: Digest
    reason: Reason


class Rejection(Value):
    """An answer that the coordinator did not admit, and why."""

    site: Name
    reason: Annotated[str, StringConstraints(max_length=300)]


class Commit(Value):
    """How a model came to be. A round exists once this object exists; round 0 is the initial model."""

    federation: Name
    federation_digest: Digest
    run: Name
    round: Annotated[int, Field(ge=0)]
    parent: Digest | None
    plan: Digest | None
    base_model: Digest | None
    model: Digest
    optimizer_state: Digest | None
    checkpoint: Digest
    rule: Rule | None
    optimizer: FedAvg | None
    updates: tuple[CommittedUpdate, ...] = ()
    refusals: tuple[CommittedRefusal, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    missing: tuple[Name, ...] = ()
    tool_version: str
