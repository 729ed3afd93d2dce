"""Who took part in a run, and what asking only some of the members did to whom its models follow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Took:
    """One member in one round."""

    weight: float
    """The agreed one."""
    asked: bool = True
    answered: bool = True
    """It need not have been of use."""
    influence: float | None = None
    """The share of the aggregate that comes from its update; None: it did not enter."""


@dataclass(frozen=True)
class MemberPart:
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

    parts: tuple[MemberPart, ...]
    moved: float
    """How much of the aggregates' weight lies elsewhere than was agreed, from 0 to 1 (the total variation distance)."""
    by_asking: float
    """The same if all who were asked had been used by their agreed weights: what selection alone did."""

    def __str__(self) -> str:
        return (f"{self.moved:.0%} of the weight in the models so far lies with other members than by the agreed weights; "
                f"that only some were asked explains {self.by_asking:.0%}. Who is asked seldom shapes the model less, "
                "whatever its agreed weight is; being asked seldom buys no privacy, since everybody sees who is asked.")


def participation(rounds: Sequence[Mapping[str, Took]]) -> Participation | None:
    """Of the rounds of one run, in order; each says something of every member. None: every member was asked in each."""
    if all(one.asked for members in rounds for one in members.values()):
        return None
    names = sorted({name for members in rounds for name in members})
    last = {name: next(members[name].weight for members in reversed(rounds) if name in members) for name in names}
    agreed = _shares(last)
    shares = [_shares({name: abs(one.influence) for name, one in members.items() if one.influence is not None})
              for members in rounds]
    asked = [_shares({name: one.weight for name, one in members.items() if one.asked}) for members in rounds]
    weight, by_asking = ({name: math.fsum(one.get(name, 0.0) for one in some) / len(rounds) for name in names}
                         for some in (shares, asked))
    return Participation(
        tuple(_part(name, agreed[name], [members[name] for members in rounds if name in members], weight[name])
              for name in names), _distance(agreed, weight), _distance(agreed, by_asking))


def _part(name: str, agreed: float, of: Sequence[Took], weight: float) -> MemberPart:
    asked = [one for one in of if one.asked]
    return MemberPart(name, agreed, len(of), len(asked), sum(one.answered for one in asked),
                      sum(one.influence is not None for one in asked), weight)


def _shares(of: Mapping[str, float]) -> dict[str, float]:
    whole = math.fsum(of.values())
    return {name: one / whole for name, one in of.items()} if whole > 0 else {}


def _distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    return math.fsum(abs(one.get(name, 0.0) - other.get(name, 0.0)) for name in {*one, *other}) / 2
