"""A row of the table that `python -m tests.faults` prints."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tried:
    """What came of one kind of fault."""

    name: str
    places: int
    """In how many places, or ways, it can happen."""
    tried: int
    wrong: tuple[str, ...]
    """Of those that were tried: what did not end as if nothing had happened."""
