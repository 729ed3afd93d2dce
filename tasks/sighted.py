"""Whether enough members will have sighted what the next plan rests on, where a round closes without a majority.

Sites answer no plan for whose window of rounds they see no majority (`fedround.sightings`). So a round waits for one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fedround import sightings
from fedround.federation import Federation
from fedround.rounds.tickets import ages
from infra.history import read_commit
from infra.stores import ObjectStore
from tasks.plan import Planned


@dataclass(frozen=True)
class Shown:
    """What the rounds before this one show, in the window of the plan after it."""

    needed: int
    """So many members must have sighted it; 0: nothing is asked, beyond the quorum."""
    before: frozenset[str] = frozenset()
    """Who has, before this round."""
    counting: frozenset[str] = frozenset()
    """Whose answers in this round are to plans of the window."""

    def lacks(self, admitted: Collection[str]) -> int:
        """How many members more must answer, if these have."""
        return max(0, self.needed - len(self.before | (self.counting & set(admitted))))


def shown(store: ObjectStore, key: str, planned: Planned, members: Federation) -> Shown:
    """What the store says. key: the coordinator's."""
    plan, window = planned.plan, sightings.window(members)
    if members.pace is None or not plan.asks.makes_model or plan.round < window:
        return Shown(0)
    first = plan.round + 1 - window
    commits = [read_commit(store, plan.run, number, key).commit for number in range(first, plan.round)]
    before = sightings.sighted(commits, members, plan.round + 1)
    return Shown(sightings.needed(members), frozenset(before),
                 frozenset(site for site, age in ages(plan).items() if plan.round - age >= first))
