"""Who took part in a campaign so far, and what asking only some of the members did to whom its models follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.reporting.record import RoundRecord, SiteRow


@dataclass(frozen=True)
class Part:
    """One member's part in a run."""

    site: str
    agreed: float
    """Its share of all agreed weights, by the last round."""
    rounds: int
    """In so many rounds it was a member."""
    asked: int
    answered: int
    used: int
    weight: float
    """Its mean share of the aggregates."""


@dataclass(frozen=True)
class Participation:
    """All members' parts in a run."""

    parts: tuple[Part, ...]
    moved: float
    """How much of the aggregates' weight lies elsewhere than was agreed, from 0 to 1 (the total variation distance)."""
    by_asking: float
    """The same if all who were asked had been used by their agreed weights: what selection alone did."""

    def __str__(self) -> str:
        return (f"{self.moved:.0%} of the weight in the models so far lies with other members than by the agreed weights; "
                f"that only some were asked explains {self.by_asking:.0%}. Who is asked seldom shapes the model less, "
                "whatever its agreed weight is; being asked seldom buys no privacy, since everybody sees who is asked.")


def participation(records: Sequence[RoundRecord]) -> Participation | None:
    """Of the rounds of one run, in order. None: every member was asked in each."""
    if not any(row.outcome == "excluded" for record in records for row in record.sites):
        return None
    rows = [{row.site: row for row in record.sites} for record in records]
    names = sorted({name for one in rows for name in one})
    last = {name: next(one[name].weight for one in reversed(rows) if name in one) for name in names}
    agreed = _shares(last)
    shares = [_shares({name: abs(row.influence or 0.0) for name, row in one.items() if row.outcome == "updated"})
              for one in rows]
    asked = [_shares({name: row.weight for name, row in one.items() if _was_asked(row)}) for one in rows]
    weight = {name: math.fsum(one.get(name, 0.0) for one in shares) / len(rows) for name in names}
    by_asking = {name: math.fsum(one.get(name, 0.0) for one in asked) / len(rows) for name in names}
    return Participation(
        tuple(_part(name, agreed[name], [one[name] for one in rows if name in one], weight[name]) for name in names),
        _distance(agreed, weight), _distance(agreed, by_asking))


def _part(name: str, agreed: float, rows: Sequence[SiteRow], weight: float) -> Part:
    asked = [row for row in rows if _was_asked(row)]
    return Part(name, agreed, len(rows), len(asked), sum(row.outcome != "missing" for row in asked),
                sum(row.outcome == "updated" for row in asked), weight)


def _was_asked(row: SiteRow) -> bool:
    return row.outcome != "excluded"


def _shares(of: dict[str, float]) -> dict[str, float]:
    whole = math.fsum(of.values())
    return {name: one / whole for name, one in of.items()} if whole > 0 else {}


def _distance(one: dict[str, float], other: dict[str, float]) -> float:
    return math.fsum(abs(one.get(name, 0.0) - other.get(name, 0.0)) for name in {*one, *other}) / 2
