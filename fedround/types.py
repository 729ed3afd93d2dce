"""The values that cross a boundary: one type each, frozen, strict, unknown keys refused.

Everything here can be written as JSON and read back unchanged. Nothing here holds a tensor, a record or a secret.
Units are in the names (`deadline_s`, `size_bytes`); `epsilon` is privacy spent, `delta_dp` a probability, and `delta`
alone is a model change.
"""

from __future__ import annotations

import itertools
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from fedround.aggregation.spec import Aggregation
from fedround.aggregation.verdict import Verdict
from fedround.agreement import LocalEvaluation
from fedround.compression.spec import Compression
from fedround.learning.spec import Ditto, LocalTraining, Parts, ServerOptimizer
from fedround.privacy.spec import Mechanism, Privacy
from fedround.values import (
    MAX_NUMBER,
    Attempt,
    CheckId,
    Digest,
    Name,
    PositiveFloat,
    PublicKey,
    Signature,
    ToolVersion,
    Value,
)

# -- tensors, by description -------------------------------------------------------------------------------------------


class TensorSpec(Value):
    """One float32 tensor of the model."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,200}$")]
    shape: tuple[Annotated[int, Field(ge=1, le=2**31)], ...]


class Payload(Value):
    """The bytes of a tensor file, by content (`codec.payload_of`)."""

    sha256: Digest
    size_bytes: Annotated[int, Field(ge=1)]
    chunks: tuple[Digest, ...]
    """SHA-256 of every `codec.CHUNK_BYTES`: a part that was read can be believed before the rest is there."""


# -- one round ---------------------------------------------------------------------------------------------------------


class Purpose(StrEnum):
    """What a plan asks for."""

    TRAIN = "train"
    EVALUATE = "evaluate"


class LogHead(Value):
    """Names the federation log up to one of its entries (`fedround.federation_log`)."""

    number: Annotated[int, Field(ge=1)]
    digest: Digest


class Exclusion(Value):
    """A member that a round does not ask, by the federation's reputation policy."""

    site: Name
    until: Annotated[int, Field(ge=1)]
    """The round in which it is asked again."""
    reason: Annotated[str, StringConstraints(max_length=300)]


class RoundPlan(Value):
    """What one round asks of its cohort. Signed by the coordinator; a site does nothing that no plan asks for."""

    federation: Name
    federation_digest: Digest
    log: LogHead
    """The federation log up to the entry that names this federation file."""
    run: Name
    round: Annotated[int, Field(ge=1, le=MAX_NUMBER)]
    attempt: Attempt = 1
    purpose: Purpose
    parent: Digest
    base_model: Digest
    tensors: tuple[TensorSpec, ...]
    recipe: Name
    recipe_digest: Digest
    contract_digest: Digest
    cohort: tuple[Name, ...]
    excluded: tuple[Exclusion, ...] = ()
    """The members that are not in the cohort, each with the reason."""
    quorum: int
    deadline_s: int
    tool_version: ToolVersion
    training: LocalTraining
    privacy: Privacy
    evaluation: LocalEvaluation
    score_edges: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()
    """Where a bin of scores ends and the next begins: quantiles of the base model's scores on the coordinator's public
    test set, so that every bin tells something. Empty: bins of equal width."""
    classes: Annotated[int, Field(ge=2)] = 2
    """How many labels the recipe tells apart: what a score is follows from it (`ScoreCounts`)."""
    aggregation: Aggregation
    optimizer: ServerOptimizer
    compression: Compression | None = None
    parts: Parts = Parts()
    personal: Ditto | None = None
    rest: Digest | None = None
    """The tensors that do not travel, the same in every round of the run: the frozen ones, and where private ones begin.
    None: there are none. `tensors` are the others."""
    control: Digest | None = None
    """With SCAFFOLD: the server's control variate, tensors like the model's; None: zeros."""

    @model_validator(mode="after")
    def _check_edges(self) -> Self:
        if self.score_edges and len(self.score_edges) != self.evaluation.bins - 1:
            raise ValueError(f"{self.evaluation.bins} bins have {self.evaluation.bins - 1} edges between them")
        if any(later < earlier for earlier, later in itertools.pairwise(self.score_edges)):
            raise ValueError("score_edges must ascend")
        return self


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
    ROLLBACK = "rollback"        # the site's folder is older than what the site has sent: restored from a backup
    HOURS = "hours"              # not at this time of day; asked again, the site may say yes
    LIMITS = "limits"            # more time or memory than the site's policy lets one plan take


class Answer(Value):
    """What every answer of a site to a plan carries."""

    federation: Name
    run: Name
    round: int
    attempt: int
    site: Name
    plan: Digest
    log: LogHead
    """The newest head of the federation log that the site has seen: the plan's."""
    tool_version: ToolVersion


class Update(Answer):
    """A site's noised model delta, by description; the tensors lie beside it."""

    kind: Literal["update"] = "update"
    base_model: Digest
    schema_digest: Digest
    """Of the plan's tensors (`codec.schema_digest`)."""
    sighting: Signature
    """The site's word for everybody that it was shown this plan (`fedround.sightings`)."""
    payload: Payload
    mechanism: Mechanism
    rows: Annotated[int, Field(ge=1)] | None = None
    """How many training rows, where they are fewer than the plan's batch: the noise is then divided by them. Otherwise the
    mechanism's sampling rate tells."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """How many steps the site did, if its time was up before the last one and the plan keeps partial work."""
    within_clip: Annotated[float, Field(ge=-1e6, le=1e6)] | None = None
    """With adaptive clipping: the noised share of gradients that were within the clip norm."""
    evaluation: ScoreCounts | None = None
    epsilon: Annotated[float, Field(ge=0)] | None = None
    """Spent on this run so far in the plan's unit and at its delta_dp, rounded up; None without privacy."""
    charges: Annotated[int, Field(ge=1)]
    """How many charges the site's ledger has, this answer's included."""
    ledger_head: Digest


class EvaluationAnswer(Answer):
    """A site's answer to a plan that only asks for an evaluation."""

    kind: Literal["evaluation"] = "evaluation"
    evaluation: ScoreCounts
    epsilon: Annotated[float, Field(ge=0)] | None = None
    charges: Annotated[int, Field(ge=1)]
    """How many charges the site's ledger has, this answer's included."""
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
    log: LogHead
    model: Payload
    tensors: tuple[TensorSpec, ...]
    parts: Parts = Parts()
    rest: Digest | None = None
    """The frozen tensors, and where private ones begin; None: `model` is all there is."""
    recipe: Name
    recipe_digest: Digest
    privacy: Privacy
    tool_version: ToolVersion


class CommittedUpdate(Value):
    """An update that was admitted, and what the aggregation made of it."""

    site: Name
    answer: Digest
    payload: Digest
    size_bytes: Annotated[int, Field(ge=1)]
    """Of the payload: what the site uploaded."""
    sighting: Signature
    """The site's word that it was shown the plan that the commit names (`fedround.sightings`)."""
    weight: PositiveFloat
    """The agreed weight. Rules that count every site the same ignore it."""
    verdict: Verdict
    """Whether it entered the aggregate."""
    reason: Annotated[str, StringConstraints(max_length=300)] = ""
    """Why it did not."""
    norm: Annotated[float, Field(ge=0)] | None
    """L2 norm of what the aggregation saw of the site: its update, or with a history its moving average. None: not finite."""
    distance: Annotated[float, Field(ge=0)] | None
    """L2 distance of that to the aggregate."""
    influence: float
    """The site's share of the aggregate; 0 for an update that was left out."""


class SiteMemory(Value):
    """The coordinator's moving average of what one site uploaded, and the law of the noise in it."""

    site: Name
    average: Digest
    """Of the tensors, which only the coordinator and an auditor may read (`layout.memory`)."""
    weight: PositiveFloat
    """The sum of beta^age over the uploads in it."""
    signal_bound: Annotated[float, Field(ge=0)] | None
    variance: Annotated[float, Field(ge=0)] | None


class SiteLedger(Value):
    """How far a site's ledger went when it last answered. It only grows: a shorter one was restored from a backup."""

    site: Name
    key: PublicKey
    """Whose ledger: a site that is enrolled anew, with a new key, begins anew."""
    charges: Annotated[int, Field(ge=1)]
    head: Digest


class CommittedRefusal(Value):
    """A site's "no", kept for the record."""

    site: Name
    answer: Digest
    reason: Reason


class Rejection(Value):
    """An answer that the coordinator did not admit, and why."""

    site: Name
    reason: Annotated[str, StringConstraints(max_length=300)]


class SiteWeight(Value):
    """What a member counted in a round whose aggregation is fair (`fedround.aggregation.fairness`)."""

    site: Name
    weight: PositiveFloat


class Commit(Value):
    """How a model came to be. A round exists once this object exists; round 0 is the initial model."""

    federation: Name
    federation_digest: Digest
    log: LogHead
    run: Name
    round: Annotated[int, Field(ge=0)]
    parent: Digest | None
    plan: Digest | None
    base_model: Digest | None
    model: Digest
    optimizer_state: Digest | None
    checkpoint: Digest
    aggregation: Aggregation | None
    optimizer: ServerOptimizer | None
    updates: tuple[CommittedUpdate, ...] = ()
    refusals: tuple[CommittedRefusal, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    missing: tuple[Name, ...] = ()
    note: Annotated[str, StringConstraints(max_length=1000)] = ""
    """Why the aggregation's gate did less than it was asked to; empty if it did all."""
    distances: Digest | None = None
    """Pairwise distances of the updates that passed the screening, in the order of `updates`."""
    ledgers: tuple[SiteLedger, ...] = ()
    """Of every site whose update entered this round or one before it."""
    memory: tuple[SiteMemory, ...] = ()
    """With a history: what the next round's averages continue."""
    centre: Digest | None = None
    """With centered clipping: this round's aggregate, where the next one begins."""
    weights: tuple[SiteWeight, ...] = ()
    """With fairness: what every member counted, whether it answered or not."""
    control: Digest | None = None
    """With SCAFFOLD: the server's control variate, which the next plan names."""
    rest: Digest | None = None
    """What the model has besides what travels; every round of the run says the same."""
    tool_version: ToolVersion
