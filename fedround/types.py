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

from fedround.aggregation.spec import Aggregation, FLTrust, default_aggregation
from fedround.aggregation.verdict import Verdict
from fedround.compression.spec import Compression, is_unbiased
from fedround.errors import ContractError, ToleranceError
from fedround.learning.spec import Ditto, FedAvg, LocalTraining, Parts, Scaffold, ServerOptimizer
from fedround.privacy.spec import Mechanism, NoPrivacy, Privacy, RecordPrivacy, SitePrivacy
from fedround.values import CheckId, Digest, Name, PositiveFloat, PublicKey, Signature, ToolVersion, Value

MAX_WINDOW = 100
"""Rounds that a reputation policy can look back."""

# -- what a federation agrees on ---------------------------------------------------------------------------------------


class LocalEvaluation(Value):
    """Sites score the base model on their own validation rows; a histogram of scores leaves, noised (Gaussian)."""

    bins: Annotated[int, Field(ge=2, le=1000)] = 10
    noise_std: Annotated[float, Field(ge=0, le=10_000)] = 10.0


class Reputation(Value):
    """When a member is not asked for a while: after `exclude_after` of its last `window` rounds were left out of the
    aggregate (a `Verdict` other than "used"), it sits out `exclude_for` rounds of the run, and begins anew.

    Only what a site signed counts against it. The plan names who sits out, why, and until when.
    """

    window: Annotated[int, Field(ge=1, le=MAX_WINDOW)]
    exclude_after: Annotated[int, Field(ge=1, le=MAX_WINDOW)]
    exclude_for: Annotated[int, Field(ge=1, le=1000)]

    @model_validator(mode="after")
    def _check_reachable(self) -> Self:
        if self.exclude_after > self.window:
            raise ValueError(f"exclude_after {self.exclude_after} can never be reached within {self.window} rounds")
        return self


class LogHead(Value):
    """Names the federation log up to one of its entries (`fedround.federation_log`)."""

    number: Annotated[int, Field(ge=1)]
    digest: Digest


class SiteEntry(Value):
    """One member, as the coordinator enrolled it. The weight is agreed here; nothing a site says later changes it."""

    name: Name
    key: PublicKey
    weight: PositiveFloat


class Agreement(Value):
    """What every round of a federation asks for. A settings file holds one; members and keys make it a `Federation`."""

    name: Name
    quorum: Annotated[int, Field(ge=1, le=1000)]
    deadline_s: Annotated[int, Field(ge=1, le=604_800)] = 600
    training: LocalTraining = LocalTraining()
    privacy: Privacy
    evaluation: LocalEvaluation = LocalEvaluation()
    aggregation: Aggregation | None = None
    """How updates become one delta; None: `default_aggregation` for the quorum. A plan always says it in full."""
    optimizer: ServerOptimizer = FedAvg()
    compression: Compression | None = None
    """How updates are made smaller before they leave; None: they are as long as the model."""
    parts: Parts = Parts()
    """Which parts of the model stay at the sites, or are trained by nobody. It cannot change within a run."""
    personal: Ditto | None = None
    """A second model for each site, which stays there; None: there is none."""
    reputation: Reputation | None = None
    """None: everybody is asked in every round, whatever became of its updates."""

    @model_validator(mode="after")
    def _check_aggregation(self) -> Self:
        try:
            self.how_to_aggregate().check(self.quorum)
        except ToleranceError as error:
            raise ValueError(f"aggregation with quorum {self.quorum}: {error}") from None
        gate = None if self.aggregation is None else self.aggregation.gate
        if gate is not None and not isinstance(self.privacy, NoPrivacy) and not self.noise_is_declared:
            raise ValueError("a gate judges uploads by the law of their noise, which scaffold, adam, top_k and count_sketch "
                             "leave unknown: agree on an aggregation without a gate, or on others of these")
        if isinstance(self.training.algorithm, Scaffold) and not is_unbiased(self.compression):
            raise ValueError("scaffold tells a site's gradients from what it sends, which top_k and count_sketch keep back "
                             "in part: agree on quantised, or on no compression")
        if self.personal is not None and self.parts.private:
            raise ValueError("a personal model has every part for itself: agree on private parts or on a personal model")
        if self.personal is not None and self.training.learning_rate * self.personal.pull > 1:
            raise ValueError(f"learning_rate x personal.pull is {self.training.learning_rate * self.personal.pull:g}: above "
                             "1 every step overshoots the shared model; lower one of them")
        if self.parts.private and isinstance(self.how_to_aggregate().rule, FLTrust):
            raise ValueError("fltrust compares updates with one that the coordinator computes, and the coordinator has no "
                             "private part: agree on another rule, or on no private parts")
        if self.how_to_aggregate().fairness is not None and isinstance(self.privacy, SitePrivacy):
            raise ValueError("fairness needs the sites' losses, and under the unit 'site' no counts of scores leave: agree "
                             "on another unit, or on no fairness")
        if isinstance(self.training.algorithm, Scaffold) and self.how_to_aggregate().history > 0:
            raise ValueError("scaffold tells the sites' gradients from this round's aggregate, which a history mixes with "
                             "older ones: agree on an aggregation with history = 0")
        return self

    @property
    def noise_is_declared(self) -> bool:
        """Whether the law of the noise in an upload follows from what its site declares."""
        if not is_unbiased(self.compression):
            return False
        return isinstance(self.privacy, SitePrivacy) or (isinstance(self.privacy, RecordPrivacy) and self.training.is_linear)

    def how_to_aggregate(self) -> Aggregation:
        """What was agreed, or what a federation gets that names nothing."""
        if self.aggregation is not None:
            return self.aggregation
        rounds = 1 if isinstance(self.privacy, NoPrivacy) else self.privacy.rounds
        return default_aggregation(self.quorum, noise_is_declared=self.noise_is_declared, rounds=rounds)


class Federation(Agreement):
    """The federation file: who takes part and what every round asks for. Signed by the coordinator."""

    coordinator: PublicKey
    recipe: Name
    recipe_digest: Digest
    contract_digest: Digest
    start: Digest | None = None
    """The checkpoint with which every run begins (`fedround.learning.start`); None: with the recipe's initial model."""
    revoked: tuple[PublicKey, ...] = ()
    """Keys that nobody may use again ('fedround federation revoke')."""
    sites: Annotated[tuple[SiteEntry, ...], Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _check_members(self) -> Self:
        names = [site.name for site in self.sites]
        keys = [site.key for site in self.sites] + [self.coordinator]
        if len(set(names)) < len(names):
            raise ValueError("two sites have the same name")
        if len(set(keys)) < len(keys):
            raise ValueError("two members have the same key; every member makes its own with 'fedround site init'")
        if revoked := sorted({site.name for site in self.sites if site.key in self.revoked}):
            raise ValueError(f"the key of '{revoked[0]}' was revoked: enrol the site with a new one")
        if self.quorum > len(names):
            raise ValueError(f"quorum {self.quorum} can never be met by {len(names)} sites")
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
