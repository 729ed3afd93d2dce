"""When simulated sites answer, by a virtual clock: which answers each round counts, and when it closes.

A round closes as live: when all have answered, when `enough` have, or at the deadline. Where the agreement has a pace, who is
at work goes on (`fedround.rounds.tickets`); without one it is stopped. Nothing here depends on what is learnt, but for whom a
round asks (`fedround.simulation.asking`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fedround.agreement import Agreement
from fedround.errors import ContractError, QuorumError
from fedround.privacy.spec import NoPrivacy
from fedround.records import Exclusion
from fedround.rounds.tickets import kept

WAIT_S, LONGEST_WAIT_S = 900.0, 30 * 86_400.0
"""How often the clock looks whether enough are there for the next round, and for how long."""


@dataclass(frozen=True)
class Turn:
    """One round."""

    number: int
    ended_s: float
    asked: tuple[str, ...]
    """Who begins to work for it, and pays."""
    counted: Mapping[str, int]
    """Whose answers count, in order of names, and the round whose plan each answers."""
    lost: tuple[str, ...] = ()
    """Who was stopped, or is too late: paid for nothing."""
    refused: tuple[str, ...] = ()
    """Who was asked, and refuses: its promise pays for no more."""
    unasked: tuple[str, ...] = ()
    """Who neither is asked nor works on an earlier plan."""
    excluded: tuple[Exclusion, ...] = ()
    """Whom the reputation policy leaves out."""


@dataclass(frozen=True)
class Whom:
    """Whom a round asks."""

    asked: tuple[str, ...]
    excluded: tuple[Exclusion, ...] = ()


class Asks(Protocol):
    """Who says whom a round asks."""

    def whom(self, number: int, at_s: float, free: tuple[str, ...]) -> Whom:
        """Of a round that begins `at_s` seconds after the campaign did. free: who works on no earlier plan."""

    @property
    def may_wait(self) -> bool:
        """Whether others may be there later."""


class Everybody:
    """All who are free."""

    may_wait = False

    def whom(self, number: int, at_s: float, free: tuple[str, ...]) -> Whom:
        """As `Asks`."""
        return Whom(free)


@dataclass
class _Members:
    """Who works on what."""

    working: dict[str, int] = field(default_factory=dict)
    """The round whose plan each works on."""
    done_s: dict[str, float] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    """The newest plan that each has answered, as far as it counted."""
    given: Counter[str] = field(default_factory=Counter)


def turns(agreed: Agreement, seconds: Mapping[str, float], rounds: int, asks: Asks | None = None, *,
          every_s: float = 0.0) -> Iterator[Turn]:
    """So many rounds, with sites that take so many seconds for one plan each.

    asks: whom each round asks; None: all who are free. every_s: a round begins so long after the one before it began, or
    when that is closed. A site that has given as many updates as the promise pays for refuses, as live.
    Raises QuorumError for a round at whose deadline too few have answered, and for one for which too few are ever there; live
    it would be run again.
    """
    if not seconds or min(seconds.values()) <= 0:
        raise ContractError("every simulated site takes some time: say how many seconds, more than 0")
    members, now_s, asks = _Members(), 0.0, asks or Everybody()
    for number in range(1, rounds + 1):
        begun_s, whom = _begin(agreed, asks, number, max(now_s, (number - 1) * every_s), members, sorted(seconds))
        asked, refused = _still_paid(agreed, whom.asked, members.given)
        unasked = tuple(sorted(seconds.keys() - members.working.keys() - {*whom.asked}))
        for site in asked:
            members.working[site], members.done_s[site] = number, begun_s + seconds[site]
            members.given[site] += 1
        ended_s = _closes(agreed, members, number, begun_s, len(seconds))
        there = sorted(site for site in members.working if members.done_s[site] <= ended_s)
        counted = {site: members.working[site] for site in there}
        if len(there) < agreed.quorum:
            raise QuorumError(f"round {number}: {len(there)} of {len(members.working)} sites answer within "
                              f"{agreed.deadline_s} s, the quorum is {agreed.quorum}: raise deadline_s, or lower the quorum")
        members.newest.update(counted)
        late = [site for site in members.working if site not in counted]
        left = {} if agreed.pace is None else kept(
            agreed.pace, members.working, {*late} - {one.site for one in whom.excluded}, number + 1)
        yield Turn(number, ended_s, asked, counted, tuple(sorted(set(late) - left.keys())), refused, unasked,
                   whom.excluded)
        members.working, now_s = left, ended_s


def at_once(agreed: Agreement, names: Sequence[str], rounds: int, asks: Asks) -> Iterator[Turn]:
    """The same without a clock: whoever is asked answers in time."""
    given = Counter[str]()
    for number in range(1, rounds + 1):
        whom = asks.whom(number, 0.0, tuple(names))
        asked, refused = _still_paid(agreed, whom.asked, given)
        given.update(asked)
        unasked = () if len(whom.asked) == len(names) else tuple(sorted({*names} - {*whom.asked}))
        yield Turn(number, 0.0, asked, dict.fromkeys(asked, number), (), refused, unasked, whom.excluded)


def _still_paid(agreed: Agreement, whom: tuple[str, ...],
                given: Mapping[str, int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Who works, and who refuses since the promise pays for no more of its updates."""
    if isinstance(agreed.privacy, NoPrivacy):
        return whom, ()
    asked = tuple(site for site in whom if given.get(site, 0) < agreed.privacy.rounds)
    return asked, tuple(site for site in whom if given.get(site, 0) >= agreed.privacy.rounds)


def _begin(agreed: Agreement, asks: Asks, number: int, now_s: float, members: _Members,
           names: list[str]) -> tuple[float, Whom]:
    """When a round begins, and whom it asks: as soon as enough are there."""
    free, since_s = tuple(site for site in names if site not in members.working), now_s
    while True:
        whom = asks.whom(number, now_s, free)
        if not asks.may_wait or len(whom.asked) + len(members.working) >= agreed.quorum:
            return now_s, whom
        now_s += WAIT_S
        if now_s - since_s > LONGEST_WAIT_S:
            raise QuorumError(f"round {number}: in {LONGEST_WAIT_S / 86_400:.0f} days there are never {agreed.quorum} sites "
                              "at once, by their hours and closed days: lower the quorum, or agree on other hours")


def _closes(agreed: Agreement, members: _Members, number: int, now_s: float, sites: int) -> float:
    """When the round closes."""
    deadline_s, there, last_s = now_s + agreed.deadline_s, dict[str, int](), now_s
    for site, number_of in sorted(members.working.items(), key=lambda one: (members.done_s[one[0]], one[0])):
        last_s = max(now_s, members.done_s[site])
        if last_s > deadline_s:
            return deadline_s
        there[site] = number_of
        if agreed.enough is not None and len(there) >= agreed.enough and _is_sighted(
                agreed, {**members.newest, **there}, number, sites):
            break
    return last_s


def _is_sighted(agreed: Agreement, newest: Mapping[str, int], number: int, sites: int) -> bool:
    """Whether a majority of the members has answered plans of the window of the next plan (`fedround.sightings`)."""
    if agreed.pace is None or number < agreed.pace.window:
        return True
    return sum(answered > number - agreed.pace.window for answered in newest.values()) > sites // 2
