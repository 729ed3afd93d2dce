"""What a regional coordinator signs: the sum of its members' updates, and whose they are."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from fedround.records.committed import CommittedRefusal, Rejection
from fedround.records.plan import Address, LogHead
from fedround.values import Digest, Length, Name, Payload, Signed, ToolVersion, Value


class Counted(Value):
    """A member whose update is in a partial sum."""

    site: Name
    answer: Digest
    """Of the member's signed answer, which names the update."""
    norm: Length | None
    """L2 norm of the update; None: the answer is masked, and nobody knows."""


class PartialSum(Address, Signed):
    """What a region's updates add up to, by its regional coordinator.

    The numbers lie beside it, as little-endian float64: for each coordinate the sum of agreed weight times update over the
    members in `counted`, in that order (`fedround.regions.sums`). Of masked answers: their sum modulo 2**32, as little-endian
    32-bit words, under all the masks that do not cancel among these members. Whoever may read what members sent finds the
    same bytes.
    """

    kind: ClassVar[str] = "partial-sum"

    region: Name
    plan: Digest
    log: LogHead
    """The plan's."""
    counted: Annotated[tuple[Counted, ...], Field(max_length=1000)] = ()
    """In the order of the members' names."""
    refusals: Annotated[tuple[CommittedRefusal, ...], Field(max_length=1000)] = ()
    rejected: Annotated[tuple[Rejection, ...], Field(max_length=1000)] = ()
    missing: Annotated[tuple[Name, ...], Field(max_length=1000)] = ()
    numbers: Payload | None
    """Of the file with the sum; None: nobody is counted."""
    tool_version: ToolVersion
