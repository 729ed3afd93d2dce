"""What the lines of a privacy ledger say. A line's meaning never changes; later versions add keys with a default that says
what was done before (`tests/fedround/privacy/test_recorded_ledger.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from fedround.privacy.spec import Mechanism, NoMechanism
from fedround.values import Charged, Digest, Name, Round, Value

Utc = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$")]

Rows = Literal["train", "validation", "all"]
"""Of a partition: those to train on, those held out, or both."""

Use = tuple[Mechanism, Rows]
"""A mechanism and the rows that it is used on, without the clip norm, which does not change the cost."""


class Lot(Value):
    """A mechanism, on which rows, and how often it is set aside."""

    mechanism: Mechanism
    rows: Rows = "all"
    times: Annotated[int, Field(ge=1, le=1_000_000)]

    @property
    def use(self) -> Use:
        """What one of it is."""
        return without_clip_norm(self.mechanism), self.rows


def without_clip_norm(mechanism: Mechanism) -> Mechanism:
    """The mechanism at clip norm 1: it costs the same."""
    return mechanism if not hasattr(mechanism, "clip_norm") else mechanism.model_copy(update={"clip_norm": 1.0})


class Charge(Value):
    """What one release costs: the mechanisms, and the plan that asked for it."""

    federation: Name
    run: Name | None
    """None: the run is no longer known (`site_workers.recover`). The charge then counts in every run that had begun when it
    was recorded."""
    round: Round
    purpose: Charged
    plan: Digest | None
    """None: nobody knows any more."""
    mechanisms: Annotated[tuple[Mechanism, ...], Field(min_length=1)]
    delta_dp: Annotated[float, Field(gt=0, lt=0.1)]
    """What the plan promises its epsilon at; the total over the data set is compared with the budget at this value."""
    utc: Utc
    campaign: tuple[Lot, ...] = ()
    """All that its campaign may use, fixed before the first of it left. Empty: an earlier version's charge; what it had
    fixed beforehand is not written."""
    terms: Digest | None = None
    """What was agreed for its campaign, the clip norm aside. If a run continues under the same terms with other mechanisms,
    the reason is that the site's rows have changed. Nobody chose this from what was released, so the campaign continues with
    them."""
    rows: tuple[Rows, ...] = ()
    """Which rows each mechanism is used on. Empty: all."""
    partition: Name | None = None
    """Which partition's rows; None: any row may be among them."""
    order: Digest | None = None
    """A digest of the rows and their order, where a record is in some rounds only; None: it may be in all."""
    times: tuple[Annotated[int, Field(ge=0, le=2)], ...] = ()
    """How often each mechanism counts: 0 where an earlier round of the same pass has paid, so that no record of this round is
    in more rounds than were paid for (`fedround.privacy.participation`). Empty: once each."""

    def uses(self) -> Iterator[Use]:
        """Each mechanism and its rows, as often as it counts."""
        for place, mechanism in enumerate(self.mechanisms):
            for _ in range(self.times[place] if self.times else 1):
                yield without_clip_norm(mechanism), self.rows[place] if self.rows else "all"

    def alone(self) -> tuple[Lot, ...]:
        """What to set aside for this charge and no other."""
        uses = list(self.uses())
        return tuple(Lot(mechanism=one[0], rows=one[1], times=uses.count(one)) for one in dict.fromkeys(uses))

    def is_of(self, earlier: Charge) -> bool:
        """Whether it is the same charge again, whenever it is made and wherever it draws."""
        return self.plan == earlier.plan and self.model_copy(update={       # most are of other plans, and compared for little
            "utc": earlier.utc, "campaign": earlier.campaign, "times": earlier.times}) == earlier

    @property
    def is_private(self) -> bool:
        """Whether all of it is noised."""
        return not any(isinstance(one, NoMechanism) for one in self.mechanisms)


class Closing(Value):
    """No campaign of this run continues: what was set aside and never used is given back."""

    federation: Name
    run: Name
    utc: Utc


class Part(Value):
    """Rows that are told apart from all others."""

    partition: Name | None = None
    rows: Literal["train", "validation"]


class Shared(Value):
    """The site has seen a row of one part in another part: it moved, or was delivered again. The two parts count as one, for
    earlier and later charges.
    """

    shared: Annotated[tuple[Part, ...], Field(min_length=2)]
    utc: Utc


Entry = Charge | Closing | Shared
