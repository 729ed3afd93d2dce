"""The values that cross a boundary: one type each, frozen, strict, unknown keys refused.

::

    Plan        what the coordinator asks of one round:       where it stands, what is agreed, and one question
    Answer      what a site says to it:                       releases, and with a question to train an update
    Refusal     a site's "no"
    Commit      how a model came to be
    Finding     what came of a question that makes no model
    Checkpoint  what a model is

Everything here can be written as JSON and read back unchanged. Nothing here holds a tensor, a record or a secret.
Units are in the names (`deadline_s`, `size_bytes`); `epsilon` is privacy spent, `delta_dp` a probability, and `delta`
alone is a model change.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from fedround.aggregation.verdict import Verdict
from fedround.agreement import Agreed, Deadline, Quorum
from fedround.learning.spec import MAX_BATCH, MAX_STEPS, Parts
from fedround.learning.task import Task
from fedround.privacy.accounting import LARGEST_EPSILON
from fedround.privacy.spec import Mechanism, Privacy
from fedround.statistics import Release, Scores, Statistic
from fedround.values import (
    MAX_NUMBER,
    Attempt,
    CheckId,
    Digest,
    Length,
    Name,
    Payload,
    PublicKey,
    Purpose,
    Round,
    Signature,
    Signed,
    Size,
    TensorSpec,
    ToolVersion,
    Value,
    Weight,
)

Charges = Annotated[int, Field(ge=1, le=10 ** 9)]
"""How many a site's ledger has."""

# -- what is asked -----------------------------------------------------------------------------------------------------


class LogHead(Value):
    """Names the federation log up to one of its entries (`fedround.federation_log`)."""

    number: Annotated[int, Field(ge=1, le=MAX_NUMBER)]
    digest: Digest


class Exclusion(Value):
    """A member that a round does not ask, by the federation's reputation policy."""

    site: Name
    until: Annotated[int, Field(ge=1, le=2 * MAX_NUMBER)]
    """The round in which it is asked again."""
    reason: Annotated[str, StringConstraints(max_length=300)]


class Blob(Value):
    """A tensor file in the store, by content, and who may read it."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")]
    digest: Digest
    readers: Literal["everybody", "coordinator"] = "everybody"
    """"coordinator": and auditors, but no site."""


def named(blobs: tuple[Blob, ...], name: str) -> Digest | None:
    """The digest of the blob with this name; None: there is none."""
    return next((blob.digest for blob in blobs if blob.name == name), None)


class _Question(Value):
    """What every question has in common. A new one is a class here, what a site does for it (`fedround.rounds.site`), what
    the server does with the answers, and a word in the sites' policies (`values.Purpose`).
    """

    makes_model: ClassVar[bool] = False
    """Whether the answers become the next round's model."""
    needs_all: ClassVar[bool] = True
    """True: a site that may not release every statistic refuses. False: it leaves those statistics out of its answer."""

    statistics: Annotated[tuple[Statistic, ...], Field(max_length=64)] = ()
    """What is asked about rows and the base model. Each is noised and charged by itself."""

    @property
    def scores(self) -> Scores | None:
        """How the base model's scores are asked for, if they are."""
        return next((one for one in self.statistics if isinstance(one, Scores)), None)


class Train(_Question):
    """Train the base model and send the noised change. If counts may leave, also say how good the base model is."""

    makes_model: ClassVar[bool] = True
    needs_all: ClassVar[bool] = False
    kind: Literal["train"] = "train"
    state: tuple[Blob, ...] = ()
    """What the server remembers of the rounds before and local training needs (`Algorithm.serves`)."""


class Evaluate(_Question):
    """Say how good the base model is."""

    kind: Literal["evaluate"] = "evaluate"
    statistics: Annotated[tuple[Scores, ...], Field(min_length=1, max_length=1)]


class Measure(_Question):
    """Count something in the rows. No model is made, and none need be there."""

    kind: Literal["measure"] = "measure"
    statistics: Annotated[tuple[Statistic, ...], Field(min_length=1, max_length=64)]


Question = Annotated[Train | Evaluate | Measure, Field(discriminator="kind")]


class Address(Value):
    """Where a question stands in a federation's history."""

    federation: Name
    run: Name
    round: Round
    """The round that the question makes. If it makes none: the round whose model it is about."""
    attempt: Attempt = 1


class Plan(Address, Signed):
    """What the coordinator asks of a cohort; a site does nothing that no plan asks for."""

    kind: ClassVar[str] = "plan"

    federation_digest: Digest
    log: LogHead
    """The federation log up to the entry that names this federation file."""
    parent: Digest
    base_model: Digest
    tensors: tuple[TensorSpec, ...]
    rest: Digest | None = None
    """The tensors that do not travel, the same in every round of the run: the frozen ones, and where private ones begin.
    None: there are none. `tensors` are the others."""
    cohort: tuple[Name, ...]
    excluded: tuple[Exclusion, ...] = ()
    """The members that are not in the cohort, each with the reason."""
    quorum: Quorum
    deadline_s: Deadline
    task: Task
    """What the recipe says is learnt."""
    agreed: Agreed
    asks: Question
    tool_version: ToolVersion

    @property
    def continues(self) -> int:
        """The committed round whose model the question is about."""
        return self.round - 1 if self.asks.makes_model else self.round


# -- what sites say ----------------------------------------------------------------------------------------------------


class Reason(StrEnum):
    """Why a site said no."""

    POLICY = "policy"            # the site's policy does not allow what the plan asks
    CONTRACT = "contract"        # the site's rows do not meet the data contract
    BUDGET = "budget"            # the privacy ledger would be overspent
    DATA = "data"                # the data file is missing, unreadable or has too few rows
    ROLLBACK = "rollback"        # the site's folder is older than what the site has sent: restored from a backup
    HOURS = "hours"              # not at this time of day; asked again, the site may say yes
    LIMITS = "limits"            # more time or memory than the site's policy lets one plan take
    FAILED = "failed"            # the recipe, or the site's software, does not work; its operator sees why


class _Said(Address, Signed):
    """What everything that a site says to a plan carries."""

    site: Name
    plan: Digest
    asked: Purpose
    """What the plan asks."""
    log: LogHead
    """The newest head of the federation log that the site has seen: the plan's."""
    tool_version: ToolVersion


class Update(Value):
    """A site's noised model delta, by description; the tensors lie beside the answer."""

    base_model: Digest
    schema_digest: Digest
    """Of the plan's tensors (`codec.schema_digest`)."""
    payload: Payload
    mechanism: Mechanism
    rows: Annotated[int, Field(ge=1, le=MAX_BATCH)] | None = None
    """The number of training rows, if it is below the plan's batch: the noise is then divided by it. Otherwise the
    mechanism's sampling rate says enough."""
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    """How many steps the site did, if its time was up before the last one and the plan keeps partial work."""
    within_clip: Annotated[float, Field(ge=-1e6, le=1e6)] | None = None
    """With adaptive clipping: the noised share of gradients that were within the clip norm. `mechanism` pays for it, too."""


class Answer(_Said):
    """A site's answer to a plan that it carried out. It lists all that leaves, and exactly this was charged."""

    kind: ClassVar[str] = "answer"
    sighting: Signature
    """The site's signed statement, for all members, that it was shown this plan (`fedround.sightings`)."""
    releases: tuple[Release, ...] = ()
    update: Update | None = None
    """To a plan to train, and to no other."""
    epsilon: Annotated[float, Field(ge=0, le=LARGEST_EPSILON)] | None = None
    """Spent on this run so far in the plan's unit and at its delta_dp, rounded up; None: no privacy, or no bound."""
    charges: Charges
    """How many charges the site's ledger has, this answer's included."""
    ledger_head: Digest

    @property
    def mechanisms(self) -> tuple[Mechanism, ...]:
        """All that was noised for this answer, as the ledger was charged for it."""
        trained = () if self.update is None else (self.update.mechanism,)
        return (*trained, *(release.mechanism for release in self.releases))

    @property
    def scores(self) -> Release | None:
        """What it says of the base model."""
        return next((release for release in self.releases if isinstance(release.statistic, Scores)), None)


class Refusal(_Said):
    """A site's signed "no": a reason code, the failed checks by id, and never a value."""

    kind: ClassVar[str] = "refusal"
    reason: Reason
    checks: tuple[CheckId, ...] = ()
    detail: Annotated[str, StringConstraints(max_length=300)] = ""


SiteAnswer = Answer | Refusal
ANSWERS: dict[str, type[Answer] | type[Refusal]] = {one.kind: one for one in (Answer, Refusal)}


# -- what the coordinator commits --------------------------------------------------------------------------------------


class Checkpoint(Signed):
    """What a model is: enough to load it and to know what it was trained under."""

    kind: ClassVar[str] = "checkpoint"

    federation: Name
    run: Name
    round: Round
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
    size_bytes: Size
    """Of the payload: what the site uploaded."""
    sighting: Signature
    """The site's signed statement that it was shown the plan that the commit names (`fedround.sightings`)."""
    weight: Weight
    """The agreed weight. Rules that count every site the same ignore it."""
    verdict: Verdict
    """Whether it entered the aggregate."""
    reason: Annotated[str, StringConstraints(max_length=300)] = ""
    """Why it did not."""
    norm: Length | None
    """L2 norm of the site's row in the aggregation: its update or, with a history, its moving average. None: not finite."""
    distance: Length | None
    """L2 distance of that to the aggregate."""
    influence: Annotated[float, Field(ge=-1e40, le=1e40)]
    """The site's share of the aggregate; 0 for an update that was left out."""


class SiteMemory(Value):
    """The coordinator's moving average of what one site uploaded, and the law of the noise in it."""

    site: Name
    average: Digest
    """Of the tensors, which only the coordinator and an auditor may read (`layout.memory`)."""
    weight: Annotated[float, Field(ge=1, le=1e6)]
    """The sum of beta^age over the uploads in it."""
    signal_bound: Length | None
    variance: Annotated[float, Field(ge=0, le=1e120)] | None


class SiteLedger(Value):
    """The length of a site's ledger at its last answer. A ledger only grows, so a shorter one was restored from a backup."""

    site: Name
    key: PublicKey
    """Identifies the ledger: a site that is enrolled again with a new key has a new ledger."""
    charges: Charges
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
    """A member's weight in a round with a fair aggregation (`fedround.aggregation.fairness`)."""

    site: Name
    weight: Annotated[float, Field(gt=0, le=1e12)]


class Commit(Signed):
    """How a model came to be. A round exists once this object exists; round 0 is the initial model."""

    kind: ClassVar[str] = "commit"

    federation: Name
    federation_digest: Digest
    log: LogHead
    run: Name
    round: Round
    parent: Digest | None
    plan: Digest | None
    agreed: Agreed | None
    """The plan's; None for round 0, which nobody was asked for."""
    base_model: Digest | None
    model: Digest
    checkpoint: Digest
    state: tuple[Blob, ...] = ()
    """What a round leaves besides its model, by name: "rest" (what does not travel; the same in every round of the run),
    "optimizer", what the local algorithm serves, "centre" (this round's aggregate, where the rule begins with it), and
    "distances" (between the updates that passed the screening, in the order of `updates`)."""
    updates: tuple[CommittedUpdate, ...] = ()
    refusals: tuple[CommittedRefusal, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    missing: tuple[Name, ...] = ()
    note: Annotated[str, StringConstraints(max_length=1000)] = ""
    """Why the aggregation's gate did less than it was asked to; empty if it did all."""
    ledgers: tuple[SiteLedger, ...] = ()
    """Of every site whose update entered this round or one before it."""
    memory: tuple[SiteMemory, ...] = ()
    """With a history: what the next round's averages continue."""
    weights: tuple[SiteWeight, ...] = ()
    """With fairness: what every member counted, whether it answered or not."""
    tool_version: ToolVersion

    def blob(self, name: str) -> Digest | None:
        """The digest of a part of the state; None: there is none."""
        return named(self.state, name)


class Told(Value):
    """An answer that entered a finding."""

    site: Name
    answer: Digest


class Finding(Signed):
    """The result of a question that makes no model: which sites answered, and their combined answer."""

    kind: ClassVar[str] = "finding"

    federation: Name
    run: Name
    round: Round
    attempt: Attempt
    plan: Digest
    answers: tuple[Told, ...] = ()
    refusals: tuple[CommittedRefusal, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    missing: tuple[Name, ...] = ()
    totals: tuple[Release, ...] = ()
    """One for each statistic of the question: the sum of the answers' numbers, and the noise in it."""
    tool_version: ToolVersion
