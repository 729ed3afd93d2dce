"""The complete terms of a round, as a plan carries them, and what may not stand in them together."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from fedround.aggregation.spec import Aggregation
from fedround.aggregation.staleness import Pace
from fedround.choices import Choice
from fedround.codec import Schema
from fedround.compression.spec import Compression
from fedround.drift.spec import DriftWatch
from fedround.errors import ContractError
from fedround.learning.algorithms import Ditto
from fedround.learning.clusters import schema_of_one
from fedround.learning.spec import Parts, ServerOptimizer, Training
from fedround.learning.union.agreed import objection_without_sums
from fedround.privacy.spec import NoPrivacy, Privacy, SitePrivacy
from fedround.regions.spec import Region
from fedround.secure_sums.spec import SecureSum
from fedround.spoken import how_many
from fedround.statistics import Groups, LocalEvaluation
from fedround.statistics.partitions import Recurring, of_one_kind
from fedround.values import Digest, Name, Value


class Together(Value):
    """All members of a federation, where their numbers are added up by a secure sum.

    Whoever is missing from a round, asked or not, counts as one of `SecureSum.dropouts`. So how often a row is drawn, and by
    how many the noise is shared, is the same in all rounds.
    """

    members: Annotated[int, Field(ge=1, le=1000)]
    rows: Annotated[int, Field(ge=1, le=10 ** 12)]
    """That they train on, all together, as agreed; with the unit 'person', persons."""


class Terms(Value):
    """The complete terms of a round: what the sites do, what leaves them, and what the server does with it."""

    training: Training
    privacy: Privacy
    evaluation: LocalEvaluation
    aggregation: Aggregation
    optimizer: ServerOptimizer
    compression: Compression | None
    parts: Parts
    personal: Ditto | None
    groups: Groups | None = None
    drift: DriftWatch | None = None
    partitions: Recurring | None = None
    combine: SecureSum | None = None
    together: Together | None = None
    """With `combine`: whose numbers are added up."""
    regions: tuple[Region, ...] = ()
    """Whose updates are added up by a regional coordinator first; none: the coordinator reads every update."""
    pace: Pace | None = None
    """Up to which age answers to earlier plans count; None: an answer counts in the round of its plan, or never."""

    @property
    def shared_by(self) -> int | None:
        """How many members share the noise; None: everybody's is its own."""
        return None if self.combine is None else self.combine.shared_by(self.union.members)

    @property
    def union(self) -> Together:
        """Whose numbers are added up. Raises ContractError if nothing is."""
        if self.together is None:
            raise ContractError("these terms add up no members' numbers, or do not say of how many: 'combine' and 'together' "
                                "come from a federation file")
        return self.together

    @property
    def aggregation_in_words(self) -> str:
        """How updates become one change of the model, for people."""
        by_region = f", of partial sums by {how_many(len(self.regions), 'region')}" if self.regions else ""
        if (how := self.combine) is None:
            each = f", for each of {self.clusters} models that sites choose among" if self.clusters > 1 else ""
            return f"{self.aggregation}{by_region}{each}"
        must = f"sign who is in it, and then {how.threshold} must reveal" if how.is_signed else "reveal"
        sums = "a sum under masks" if how.groups is None else (
            f"sums under masks of {how.groups.count} groups, without the {how.groups.liars} lowest and highest at each "
            "number,")
        return (f"{sums} of {self.union.members} members: {how.dropouts} may be missing, {how.threshold} must "
                f"{must}, {how.colluders} may collude; noise shared by {self.shared_by}{by_region}")

    def sent(self, model: Schema) -> Schema:
        """The tensors of an update to such a model, or to one of several that sites choose from."""
        return self.training.sent(schema_of_one(model, self.clusters), noised=not isinstance(self.privacy, NoPrivacy))

    @property
    def clusters(self) -> int:
        """How many models are trained at once; each site trains the one that its own scores choose."""
        return self.evaluation.clusters

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        check_steps(self.privacy, self.training)
        return self

    @model_validator(mode="after")
    def _check_partitions(self) -> Self:
        check_partitions(self.privacy, self.drift, self.partitions)
        return self

    @model_validator(mode="after")
    def _check_learner(self) -> Self:
        if self.combine is None and (why_not := objection_without_sums(self.training)) is not None:
            raise ValueError(why_not)
        return self


def check_steps(privacy: Privacy, training: Training) -> None:
    """Raises ValueError if the number of steps may tell what this promise keeps secret."""
    if isinstance(privacy, SitePrivacy) and training.partial != "refuse":
        raise ValueError("under the unit 'site' nothing may tell how many rows there are, and how many steps a site's time "
                         "sufficed for does: agree on partial = 'refuse'")


def check_partitions(privacy: Privacy, drift: DriftWatch | None, partitions: Recurring | None) -> None:
    """Raises ValueError if the rows of a partition could not pay by themselves."""
    if partitions is not None and isinstance(privacy, SitePrivacy):
        raise ValueError("partitions: under the unit 'site' all that a site contributes pays, whichever rows it is made of: "
                         "agree on the unit 'record', or on no partitions")
    watched = None if drift is None else drift.partitions
    if partitions is not None and watched is not None and not of_one_kind(watched, partitions):
        raise ValueError("drift.partitions: rows are told apart otherwise than in [partitions]; both ways overlap, and all "
                         "rows would pay for one of them: agree on one way")


class Agreed(Terms):
    """What a plan says that its federation agreed on: how a round is done, with which recipe, on rows of which contract."""

    recipe: Name
    recipe_digest: Digest
    contract_digest: Digest
    choice: Choice | None = None
    """Why privacy and rule are not what the federation file says first; None: they are."""
