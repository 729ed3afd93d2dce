"""When simulated sites answer, by a virtual clock: which answers each round counts, and when it closes.

A round closes as live: when all have answered, when `enough` have, or at the deadline. Where the agreement has a pace, who is
at work goes on (`fedround.rounds.tickets`); without one it is stopped. Nothing here depends on what is learnt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fedround.agreement import Agreement
from fedround.errors import ContractError, QuorumError
from fedround.privacy.spec import NoPrivacy
from fedround.rounds.tickets import kept


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


@dataclass
class _Members:
    """Who works on what."""

    working: dict[str, int] = field(default_factory=dict)
    """The round whose plan each works on."""
    done_s: dict[str, float] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    """The newest plan that each has answered, as far as it counted."""
    given: Counter[str] = field(default_factory=Counter)


def turns(agreed: Agreement, seconds: Mapping[str, float], rounds: int) -> Iterator[Turn]:
    """So many rounds, with sites that take so many seconds for one plan each.

    A site that has given as many updates as the promise pays for is asked no more; so live it refuses.
    Raises QuorumError for a round at whose deadline too few have answered; live it would be run again.
    """
    if not seconds or min(seconds.values()) <= 0:
        raise ContractError("every simulated site takes some time: say how many seconds, more than 0")
    most = None if isinstance(agreed.privacy, NoPrivacy) else agreed.privacy.rounds
    members, now_s = _Members(), 0.0
    for number in range(1, rounds + 1):
        asked = tuple(site for site in sorted(seconds) if site not in members.working
                      and (most is None or members.given[site] < most))
        for site in asked:
            members.working[site], members.done_s[site] = number, now_s + seconds[site]
            members.given[site] += 1
        ended_s = _closes(agreed, members, number, now_s, len(seconds))
        there = sorted(site for site in members.working if members.done_s[site] <= ended_s)
        counted = {site: members.working[site] for site in there}
        if len(there) < agreed.quorum:
            raise QuorumError(f"round {number}: {len(there)} of {len(members.working)} sites answer within "
                              f"{agreed.deadline_s} s, the quorum is {agreed.quorum}: raise deadline_s, or lower the quorum")
        members.newest.update(counted)
        late = [site for site in members.working if site not in counted]
        left = {} if agreed.pace is None else kept(agreed.pace, members.working, late, number + 1)
        yield Turn(number, ended_s, asked, counted, tuple(sorted(set(late) - left.keys())))
        members.working, now_s = left, ended_s


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
