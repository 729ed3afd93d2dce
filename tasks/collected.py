"""What sites answered to a plan, as values: each answer, and all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from fedround.aggregation.rows import Row
from fedround.records import Answer, CommittedRefusal, PartialSum, Refusal, Rejection, Summed, SummedRegion
from fedround.rounds.summed import Read
from fedround.signing import digest
from infra.stores import Traffic

T = TypeVar("T")


@dataclass(frozen=True)
class Admitted:
    """An answer that may be used, its signed document, and on local disk what came with it: an update's row, or a file for
    secure sums.
    """

    answer: Answer
    document: bytes
    row: Row | None
    file: Path | None = None

    @property
    def digest(self) -> str:
        """Of the document."""
        return digest(self.document)


@dataclass(frozen=True)
class Refused:
    """A site's "no", and what a commit says of it."""

    refusal: Refusal
    committed: CommittedRefusal


@dataclass(frozen=True)
class Rejected:
    """An answer that was not admitted: what a commit says of it."""

    said: Rejection
    is_forged: bool
    """Whether somebody else signed what lies in the place of the site's answer, or changed it."""


Heard = Admitted | Refused | Rejected
"""An answer, a refusal, or the reason why the site's answer was rejected."""


def _none() -> Mapping[str, T]:
    return MappingProxyType({})


@dataclass(frozen=True)
class Fetched:
    """What it took to read a site's answer, by this process's own clock: seconds of waiting for the store, and its calls."""

    seconds: float
    calls: int


@dataclass(frozen=True)
class Collected:
    """Every site of the cohort is in exactly one of the four. The value never changes: a later answer gives a new value."""

    admitted: Mapping[str, Admitted] = field(default_factory=_none)
    refused: Mapping[str, Refused] = field(default_factory=_none)
    rejected: Mapping[str, Rejection] = field(default_factory=_none)
    missing: tuple[str, ...] = ()
    forged: frozenset[str] = field(default=frozenset(), compare=False)
    """Of the rejected, those whose answer somebody else signed. Nobody signs it: it is for people."""
    fetched: Mapping[str, Fetched] = field(default_factory=_none, compare=False)
    """By site. Nobody signs it: it is for people."""
    sum: Sum | None = None
    """Of masked answers: what they say together; nobody knows what one says."""
    idle: frozenset[str] = field(default=frozenset(), compare=False)
    """Who was given up before the deadline. Nobody signs it: it is for people."""
    regional: Regional | None = None
    """With regions, once their partial sums were judged: these. Then whoever is admitted is in one of them."""

    def __post_init__(self) -> None:
        for name in ("admitted", "refused", "rejected", "fetched"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def answers(self) -> Mapping[str, Answer]:
        """What was admitted, by site, in their order."""
        return {site: admitted.answer for site, admitted in sorted(self.admitted.items())}

    @property
    def answered(self) -> frozenset[str]:
        """The sites that have said something."""
        return frozenset(self.admitted.keys() | self.refused.keys() | self.rejected.keys())

    def having_fetched(self, site: str, traffic: Traffic) -> Collected:
        """With what it took to read the answer of one site; once more, it adds up."""
        before = self.fetched.get(site, Fetched(0.0, 0))
        told = Fetched(before.seconds + traffic.seconds, before.calls + traffic.calls)
        return replace(self, fetched={**self.fetched, site: told})

    def hearing(self, site: str, heard: Heard | None) -> Collected:
        """With the answer of one site added; None: the site has said nothing."""
        match heard:
            case Admitted():
                return replace(self, admitted={**self.admitted, site: heard})
            case Refused():
                return replace(self, refused={**self.refused, site: heard})
            case Rejected():
                forged = self.forged | {site} if heard.is_forged else self.forged
                return replace(self, rejected={**self.rejected, site: heard.said}, forged=forged)
            case None:
                return self


@dataclass(frozen=True, eq=False)
class Sum:
    """What the sum of masked answers says, and how it was read."""

    read: Read
    said: Summed


@dataclass(frozen=True)
class Partial:
    """A region's partial sum that counts, and its numbers on local disk."""

    said: PartialSum
    path: Path


@dataclass(frozen=True)
class Regional:
    """The partial sums that count, in the order in which they are added up, and what a commit says of every region."""

    parts: tuple[Partial, ...]
    told: tuple[SummedRegion, ...]

    @property
    def norms(self) -> dict[str, float]:
        """Of every update that is in a sum, as the regional coordinators say."""
        return {one.site: one.norm or 0.0 for part in self.parts for one in part.said.counted}
