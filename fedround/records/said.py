"""What sites say to a plan: an answer, or a refusal."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Self

from pydantic import Field, StringConstraints, model_validator

from fedround.learning.spec import MAX_STEPS
from fedround.privacy.accounting import LARGEST_EPSILON
from fedround.privacy.spec import Mechanism
from fedround.records.plan import Address, LogHead
from fedround.statistics import ModelSums, Release, Scores
from fedround.values import MAX_CHECKS, CheckId, Digest, Name, Payload, Purpose, Rows, Signature, Signed, ToolVersion, Value

Charges = Annotated[int, Field(ge=0, le=10 ** 9)]
"""How many a site's ledger has."""

FailedChecks = Annotated[tuple[CheckId, ...], Field(max_length=MAX_CHECKS)]


class Reason(StrEnum):
    """Why a site said no."""

    POLICY = "policy"            # the site's policy does not allow what the plan asks
    CONTRACT = "contract"        # the site's rows do not meet the data contract
    BUDGET = "budget"            # the privacy ledger would be overspent
    DATA = "data"                # the data file is missing, unreadable or has too few rows
    ROLLBACK = "rollback"        # the site's folder is older than what the site has sent: restored from a backup
    HOURS = "hours"              # not at this time of day; asked again, the site may say yes
    LIMITS = "limits"            # more time or memory than the site's policy lets one plan take
    KEYS = "keys"                # no part in the keys that mask answers, or a wrong share: new keys are needed
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
    rows: Rows | None = None
    """The number of training rows, where the noise is divided by it: if it is below the plan's batch, and for sums over all
    rows (`RowSum`). Otherwise the mechanism's sampling rate says enough."""
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    """How many steps the site did, if its time was up before the last one and the plan keeps partial work."""
    within_clip: Annotated[float, Field(ge=-1e6, le=1e6)] | None = None
    """With adaptive clipping: the noised share of gradients that were within the clip norm. `mechanism` pays for it, too."""


MOST_MATERIAL = 1 << 28
"""Bytes of what one site says of keys: the largest federation with the most slots needs fewer."""


class Masked(Value):
    """All that leaves for a question, noised, as one masked vector: it can be read in the sum of all, and nowhere else."""

    payload: Payload
    length: Annotated[int, Field(ge=1, le=2 ** 31)]
    """How many numbers."""
    mechanisms: Annotated[tuple[Mechanism, ...], Field(max_length=65)]


class Answer(_Said):
    """A site's answer to a plan that it carried out. It lists all that leaves, and exactly this was charged."""

    kind: ClassVar[str] = "answer"
    sighting: Signature
    """The site's signed statement, for all members, that it was shown this plan (`fedround.sightings`)."""
    releases: tuple[Release, ...] = ()
    update: Update | None = None
    """To a plan to train, and to no other."""
    masked: Masked | None = None
    """To a plan with a slot, instead of releases and update."""
    material: Payload | None = None
    """To a plan about keys: the keys, the dealt shares, or what is revealed (`fedround.secure_sums`). To a step between two
    members: a key in the open, then what is encrypted to the peer (`fedround.vertical`)."""
    noised: Annotated[tuple[Mechanism, ...], Field(max_length=1)] = ()
    """What was noised in `material`, and charged."""
    epsilon: Annotated[float, Field(ge=0, le=LARGEST_EPSILON)] | None = None
    """Spent on this run so far in the plan's unit and at its delta_dp, rounded up; None: no privacy, or no bound."""
    epsilon_alone: Annotated[float, Field(ge=0, le=LARGEST_EPSILON)] | None = None
    """The same if nobody else's share of the noise of a sum counts (`fedround.privacy.units.alone`). None: no noise is
    shared, or there is no bound."""
    charges: Charges
    """How many charges the site's ledger has, this answer's included if anything is charged for it."""
    ledger_head: Digest
    checks: FailedChecks = ()
    """Checks of the data contract that the files' columns or types fail, and that only warn. No record decides them."""

    @model_validator(mode="after")
    def _check_material(self) -> Self:
        if self.material is not None and self.material.size_bytes > MOST_MATERIAL:
            raise ValueError(f"a file about keys of {self.material.size_bytes} bytes, at most {MOST_MATERIAL} are read")
        return self

    @property
    def mechanisms(self) -> tuple[Mechanism, ...]:
        """All that was noised for this answer, as the ledger was charged for it."""
        trained = () if self.update is None else (self.update.mechanism,)
        masked = () if self.masked is None else self.masked.mechanisms
        return (*trained, *(release.mechanism for release in self.releases), *masked, *self.noised)

    @property
    def payload(self) -> Payload | None:
        """The file beside it."""
        said = self.update or self.masked
        return self.material if said is None else said.payload

    @property
    def scores(self) -> Release | None:
        """What it says of the base model; of the first, where sites choose among several."""
        return next((release for release in self.releases if isinstance(release.statistic, Scores | ModelSums)), None)


class Refusal(_Said):
    """A site's signed "no": a reason code, the failed checks by id, and never a value."""

    kind: ClassVar[str] = "refusal"
    reason: Reason
    checks: FailedChecks = ()
    detail: Annotated[str, StringConstraints(max_length=300)] = ""


SiteAnswer = Answer | Refusal
ANSWERS: dict[str, type[Answer] | type[Refusal]] = {one.kind: one for one in (Answer, Refusal)}
