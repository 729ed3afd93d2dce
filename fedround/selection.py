"""Which members a round asks, where a federation agrees to ask only some: a value of the federation file.

Who is asked follows from three things: the signed value, what the run's committed rounds say of each member, and a seed that
everybody can compute. So whoever has the history finds the same members; `verify` does. Nothing in here is secret, so being
asked seldom buys a member no privacy: nobody takes a discount for it (docs/selection.md).

Sampling uses whole numbers only: no two machines differ in a last bit.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from fedround.values import Value

MAX_LOOK_BACK = 100
"""Rounds."""
_UNIT = 1 << 32

Members = Annotated[int, Field(ge=1, le=1000)]
LookBack = Annotated[int, Field(ge=1, le=MAX_LOOK_BACK)]


@dataclass(frozen=True)
class MemberRecord:
    """What the committed rounds that count say of one member."""

    asked: int = 0
    """In how many of them it was asked."""
    used: int = 0
    """In how many of them its update entered the aggregate."""
    rested: int = 0
    """How many rounds in a row, up to the last one, did not ask it."""
    loss: float | None = None
    """The last mean loss of a model at this member, by its noised counts; None: not known."""


NEW = MemberRecord()


class _Selection(Value):
    """How many are asked, and at least how often each.

    sites: so many of those who can be asked; all of them, if they are fewer.
    within: each member is asked at least once in so many rounds in a row, as long as it can be asked. None: chance says when.
    """

    looks_at_losses: ClassVar[bool] = False

    sites: Members
    within: LookBack | None = None

    @property
    def looks_back(self) -> int:
        """How many rounds count."""
        return 0 if self.within is None else self.within - 1

    def order(self, names: Sequence[str], weights: Mapping[str, float], past: Mapping[str, MemberRecord],
              chance: Chance) -> list[str]:
        """All of them, whom to ask first in front. weights: the agreed ones."""
        raise NotImplementedError


class Random(_Selection):
    """Each member with the same chance."""

    name: Literal["random"] = "random"

    def order(self, names: Sequence[str], weights: Mapping[str, float], past: Mapping[str, MemberRecord],
              chance: Chance) -> list[str]:
        """As `_Selection`."""
        return chance.drawn(dict.fromkeys(sorted(names), 1))


class Reliable(_Selection):
    """Who was of use is asked more often: with a chance that grows with (1 + used) / (2 + asked) over the last `window`
    rounds.

    A refusal (rows that fail the contract, say), silence, a rejected answer, and an update that the rule left out all count
    as not used. Nobody's chance becomes 0.
    """

    name: Literal["reliable"] = "reliable"
    window: LookBack = 20

    @property
    def looks_back(self) -> int:
        """As `_Selection`."""
        return max(self.window, super().looks_back)

    def order(self, names: Sequence[str], weights: Mapping[str, float], past: Mapping[str, MemberRecord],
              chance: Chance) -> list[str]:
        """As `_Selection`."""
        found = {name: past.get(name, NEW) for name in sorted(names)}
        return chance.drawn({name: _UNIT * (1 + one.used) // (2 + one.asked) for name, one in found.items()})


class PowerOfChoice(_Selection):
    """Of `candidates` members, drawn with chances as their agreed weights, those at which the last model had the largest loss
    (Cho et al. 2020, arXiv:2010.01243).

    The loss is the one that a member's noised counts told when it last answered within `window` rounds: it is old, and a
    member can lie about it. A liar is asked more often and counts no more for it. Who was not asked goes first; whose noise
    hides its loss stands in the middle. It leans
    towards members whose rows are hard, so the model of one that nobody else is like gains, and the mean of all may lose.
    """

    looks_at_losses: ClassVar[bool] = True

    name: Literal["power_of_choice"] = "power_of_choice"
    candidates: Members
    window: LookBack = 20

    @model_validator(mode="after")
    def _check_candidates(self) -> Self:
        if self.candidates < self.sites:
            raise ValueError(f"power_of_choice draws {self.candidates} candidates and asks {self.sites} of them: draw more")
        return self

    @property
    def looks_back(self) -> int:
        """As `_Selection`."""
        return max(self.window, super().looks_back)

    def order(self, names: Sequence[str], weights: Mapping[str, float], past: Mapping[str, MemberRecord],
              chance: Chance) -> list[str]:
        """As `_Selection`."""
        whole = math.fsum(weights[name] for name in names)
        drawn = chance.drawn({name: max(1, int(_UNIT * (weights[name] / whole))) for name in sorted(names)})
        few, others = drawn[:self.candidates], drawn[self.candidates:]
        standing = {name: past.get(name, NEW) for name in few}
        known = sorted(one.loss for one in standing.values() if one.loss is not None)
        middle = known[len(known) // 2] if known else 0.0

        def loss(name: str) -> float:
            one = standing[name]
            return math.inf if one.asked == 0 else middle if one.loss is None else one.loss

        return sorted(few, key=lambda name: -loss(name)) + others


Selection = Annotated[Random | Reliable | PowerOfChoice, Field(discriminator="name")]


class Chance:
    """Draws that follow from a seed. It is public: whoever knows the seed knows them all."""

    def __init__(self, *seed: str | int):
        self._seed, self._taken = "\n".join(map(str, seed)).encode(), 0

    def below(self, limit: int) -> int:
        """A whole number from 0 to `limit` - 1, each with the same chance."""
        bits = limit.bit_length()
        while True:
            self._taken += 1
            number = int.from_bytes(hashlib.sha512(b"%d\n%b" % (self._taken, self._seed)).digest(), "big") >> (512 - bits)
            if number < limit:
                return number

    def drawn(self, weight: Mapping[str, int]) -> list[str]:
        """All names, each place drawn from those that are left with chances as their weights."""
        left, found = dict(weight), list[str]()
        while left:
            at, ends = self.below(sum(left.values())), itertools.accumulate(left.values())
            name = next(name for name, end in zip(left, ends, strict=True) if at < end)
            found.append(name)
            del left[name]
        return found


def selected(how: _Selection, names: Sequence[str], weights: Mapping[str, float], past: Mapping[str, MemberRecord],
             chance: Chance) -> tuple[str, ...]:
    """Whom of `names` to ask, in their order. past: of who was asked in no round that counts, nothing need be said.

    Promised: `how.sites` of them, or all if they are fewer; with `within`, no member that can be asked in every round waits
    longer, as long as `how.sites` times `within` is at least the number of members.
    """
    order = how.order(names, weights, past, chance)
    first = _due(how, order, past)
    taken = {*first, *[name for name in order if name not in first][:how.sites - len(first)]}
    return tuple(name for name in names if name in taken)


def _due(how: _Selection, order: Sequence[str], past: Mapping[str, MemberRecord]) -> list[str]:
    """Who must be asked now, so that nobody comes too late in this round or in a later one.

    Of those who can wait for at most w more rounds, `sites` are asked in each of these: what is more than that is due now.
    """
    if how.within is None:
        return []
    waits = {name: max(0, how.within - 1 - past.get(name, NEW).rested) for name in order}
    due = list[str]()
    for rounds in range(how.within):
        among = [name for name in order if waits[name] <= rounds]
        lacking = len(among) - how.sites * rounds - sum(name in due for name in among)
        due += [name for name in among if name not in due][:max(0, min(lacking, how.sites - len(due)))]
    return due
