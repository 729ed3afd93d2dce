"""How members' numbers are added without anybody seeing one member's: what the federation agrees on, and when it holds.

N members, t: the threshold, D: dropouts, c: colluders. docs/secure-sums.md has the proofs.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedround.errors import ToleranceError
from fedround.spoken import how_many
from fedround.values import Value

MOST_MEMBERS = 1000
FEWEST_MEMBERS = 3
MOST_GROUPS = 100

Consistency = Literal["counted", "signed"]


class SumGroups(Value):
    """A sum for each of some groups of members, instead of one of all. Who is in which is drawn anew for every sum."""

    count: Annotated[int, Field(ge=3, le=MOST_GROUPS)]
    liars: Annotated[int, Field(ge=1, le=MOST_GROUPS)]
    """In so many groups somebody may lie: at every number of their means, so many lowest and so many highest are left out."""


class SecureSum(Value):
    """Only the sum of the members' numbers can be read: by nobody the numbers of one.

    Promised to each honest member while at most `colluders` members work together with the coordinator, all of whom may lie:
    what they learn of a slot is at most one sum (of each group), over at least `shared_by` honest members, and none over
    fewer.
    Computational (X25519, AES-256, SHA-256). Not promised: that the sum is right, if a member lies about its own numbers.
    """

    name: Literal["secure_sum"] = "secure_sum"
    threshold: Annotated[int, Field(ge=2, le=MOST_MEMBERS)]
    """So many members together can replace what a member that dropped out would have said; fewer cannot."""
    dropouts: Annotated[int, Field(ge=0, le=MOST_MEMBERS)]
    """So many members may be missing from a sum, from the offer of keys to the last message."""
    colluders: Annotated[int, Field(ge=0, le=MOST_MEMBERS)]
    """So many members may hand all they know to the coordinator."""
    consistency: Consistency = "counted"
    """Why a coordinator that names other survivors to each member gains nothing. "counted": it needs more votes than there
    are. "signed": a threshold of members sign one list of survivors before anybody reveals, in a wait more."""
    groups: SumGroups | None = None
    """None: all members add up one sum."""

    def check(self, members: int) -> None:
        """Raises ToleranceError, saying which number would do, if the promise does not hold for so many members."""
        t, d, c = self.threshold, self.dropouts, self.colluders
        said = (f"a secure sum of {how_many(members, 'member')}, threshold {t}, {how_many(d, 'dropout')} and "
                f"{how_many(c, 'colluder')}")
        if not FEWEST_MEMBERS <= members <= MOST_MEMBERS:
            raise ToleranceError(f"{said}: it takes {FEWEST_MEMBERS} to {MOST_MEMBERS} members")
        if t > members - d:
            raise ToleranceError(f"{said}: with {d} missing only {max(members - d, 0)} can say their part, fewer than the "
                                 "threshold; lower it, or the dropouts")
        if 2 * t <= members + c:
            raise ToleranceError(f"{said}: the coordinator could learn both secrets of one member, since 2 x {t} is not "
                                 f"above {members} + {c}; the threshold must be at least {(members + c) // 2 + 1}")
        if self.shared_by(members) < 2:
            of = "" if self.groups is None else f" of a group of {self.smallest(members)}, in which all of them may be"
            raise ToleranceError(f"{said}: at least two honest members must be in every sum{of}; lower the dropouts or the "
                                 f"colluders{'' if self.groups is None else ', or have fewer groups'}")
        if self.groups is not None and 2 * self.groups.liars >= self.groups.count:
            raise ToleranceError(f"{said}: of {self.groups.count} groups {self.groups.liars} may have liars, and some must "
                                 f"be left between lowest and highest: at most {(self.groups.count - 1) // 2}")
        if self.cut(members) > d:
            raise ToleranceError(f"{said}: a coordinator that names other survivors to each member could leave "
                                 f"{self.cut(members)} honest ones out of the sum, more than {d}: ({d} + 1) x ({t} - {c}) "
                                 f"must be above {d} x ({members} - {c}); raise the threshold up to {members - d}, or lower "
                                 "the dropouts or the colluders, or let members sign who is in the sum before they reveal: "
                                 "consistency = \"signed\"")

    def least(self, members: int) -> int:
        """How many members a sum has at least."""
        return members - self.dropouts

    def smallest(self, members: int) -> int:
        """How many members the smallest group has, before anybody dropped out."""
        return members if self.groups is None else members // self.groups.count

    def shared_by(self, members: int) -> int:
        """How many honest members are in every sum: noise is calibrated so that the shares of so many suffice. All who are
        missing, and all who collude, may be in one group.
        """
        return self.smallest(members) - self.dropouts - self.colluders

    @property
    def is_signed(self) -> bool:
        """Whether members sign who is in the sum before they reveal."""
        return self.consistency == "signed"

    def cut(self, members: int) -> int:
        """How many honest members' keys the coordinator can learn at most, whatever survivors it names to whom. Where they
        are signed, all that reveal have seen one list: two would need twice the threshold of signatures.
        """
        if self.is_signed:
            return self.dropouts
        return (members - self.colluders) * self.dropouts // (self.threshold - self.colluders)
