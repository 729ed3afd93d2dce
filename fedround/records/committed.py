"""What the coordinator commits: models, how they came to be, and findings."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from fedround.aggregation.verdict import Verdict
from fedround.choices import Choice
from fedround.learning.spec import Parts
from fedround.privacy.spec import Privacy
from fedround.records.plan import LogHead
from fedround.records.questions import Blob, Placed, Told, named
from fedround.records.said import Charges, Reason
from fedround.statistics import MAX_CLUSTERS, Release
from fedround.statistics.partitions import Partition
from fedround.terms import Agreed
from fedround.values import (
    Attempt,
    Digest,
    Length,
    Name,
    Payload,
    PublicKey,
    Round,
    Signature,
    Signed,
    Size,
    TensorSpec,
    ToolVersion,
    Value,
    Weight,
)


class Begun(Value):
    """The committed round of another run whose model a run began with."""

    run: Name
    round: Round
    commit: Digest


class Checkpoint(Signed):
    """What a model is: enough to load it and to know what it was trained under."""

    kind: ClassVar[str] = "checkpoint"

    federation: Name
    run: Name
    round: Round
    log: LogHead
    model: Payload
    tensors: tuple[TensorSpec, ...]
    clusters: Annotated[int, Field(ge=1, le=MAX_CLUSTERS)] = 1
    """How many models it is; of several, each tensor's first axis says which."""
    parts: Parts = Parts()
    rest: Digest | None = None
    """The frozen tensors, and where private ones begin; None: `model` is all there is."""
    partition: Partition | None = None
    """The only rows that the run trains on, the same in every round; None: all."""
    choice: Choice | None = None
    """What was chosen for the run when it began, the same in every round of the run; None: nothing."""
    after: Begun | None = None
    """Of round 0: where its model comes from; None: it is the run's own."""
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
    """The site's signed statement that it was shown the plan that it answers (`fedround.sightings`)."""
    ticket: Round | None = None
    """The earlier round whose committed plan it answers; None: it answers the plan that the commit names."""
    weight: Weight
    """The agreed weight. Rules that count every site the same ignore it."""
    cluster: Annotated[int, Field(ge=0, le=MAX_CLUSTERS - 1)] | None = None
    """Which of several models it is of, by the scores in its answer (`fedround.learning.clusters.chosen`). None: there is one
    model for all."""
    within_clip: Annotated[float, Field(ge=-1e6, le=1e6)] | None
    """As the site said it (`Update`). It stands here because the next plan's clip norm follows from it, and the site may
    alter its answer afterwards."""
    loss: Annotated[float, Field(ge=0, le=1)] | None = None
    """The base model's mean loss at the site, by the noised counts of its answer, where who is asked next follows from it.
    None: it does not, or noise hides it."""
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


class Summed(Value):
    """How the masks came off the sum of the answers."""

    reveal: Placed
    """The plan that asked for it; it names whose answers are in the sum."""
    reveals: Annotated[tuple[Told, ...], Field(max_length=1000)]
    """Who revealed shares."""
    wrong: Annotated[tuple[Name, ...], Field(max_length=1000)] = ()
    """Of them: whose shares are not those that they were dealt. They counted for nothing."""


class SummedRegion(Value):
    """What became of one region's partial sum."""

    region: Name
    partial: Digest | None
    """Of the signed `PartialSum` that was added up; None: none was."""
    reason: Annotated[str, StringConstraints(max_length=300)] = ""
    """Why none was. Its members' answers count for nothing then."""


class Score(Value):
    """What the sites' noised counts say of a model together."""

    value: Annotated[float, Field(ge=-1e12, le=1e12)]
    """The task's first metric; more is better."""
    margin: Annotated[float, Field(ge=0, le=1e12)]
    """How far noise may have moved it, in 95 of 100 repeats."""


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
    sum: Summed | None = None
    """Under `combine`: how the sum of the masked answers was read."""
    totals: tuple[Release, ...] = ()
    """Under `combine`: what the plan's statistics are, of all sites together."""
    regions: Annotated[tuple[SummedRegion, ...], Field(max_length=100)] = ()
    """With regions: each that was asked, in the order of their names, in which their sums were added up."""
    score: Score | None = None
    """Of the base model, where the training of the next round follows from it; None: it does not, or noise hides it."""
    tool_version: ToolVersion

    def blob(self, name: str) -> Digest | None:
        """The digest of a part of the state; None: there is none."""
        return named(self.state, name)


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
    sum: Summed | None = None
    """Under `combine`: how the sum of the masked answers was read."""
    tool_version: ToolVersion
