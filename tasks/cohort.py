"""Whom a plan asks: the members that are left by the reputation policy, are there at the time, and are selected or chosen.

Everything but the time follows from the federation file and from signed plans and commits. So whoever can read these can
compute it again; `verify` does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from fedround.errors import ContractError
from fedround.federation import Federation
from fedround.records import Exclusion, Plan
from fedround.rounds.asking import whom
from fedround.rounds.earlier import Earlier
from fedround.selection import Chance
from fedround.values import Name


@dataclass(frozen=True)
class Cohort:
    """Who is asked, and who is not, for which reason."""

    asked: tuple[Name, ...]
    excluded: tuple[Exclusion, ...]
    unasked: tuple[Name, ...]
    at: int | None
    """The time for which this holds, in seconds since 1970; None: for any."""

    def of(self, plan: Plan) -> Plan:
        """The plan, asking these."""
        return plan.model_copy(update={"cohort": self.asked, "excluded": self.excluded, "unasked": self.unasked,
                                       "at": self.at})


@dataclass(frozen=True)
class Place:
    """Where the question stands: of this follows the seed of a draw."""

    run: Name
    round: int
    """The one that the question makes, or the one whose model it is about."""
    attempt: int
    trains: bool


def now_for(federation: Federation, now: datetime) -> int | None:
    """The time that a plan must say; None: nobody's being asked depends on it."""
    return None if all(site.is_always_there for site in federation.sites) else int(now.timestamp())


def cohort_of(federation: Federation, place: Place, past: Sequence[Earlier], at: int | None,
              chosen: Collection[Name] | None = None) -> Cohort:
    """Whom to ask.

    federation: with the quorum of the request. past: the run's committed rounds, all that can count
    (`fedround.rounds.asking.first_that_counts`). at: the time, in seconds since 1970. chosen: the sites that the request
    names; None: all.
    Raises ContractError if these may not be asked, or too few are left.
    """
    moment = None if at is None else datetime.fromtimestamp(at, UTC)
    if federation.selection is not None and place.trains and chosen is not None:
        raise ContractError(f"federation '{federation.name}': its [selection] says who is asked; name no sites")
    named = {site.name for site in federation.sites} if chosen is None else {federation.site(name).name for name in chosen}
    chance = Chance("fedround selection", federation.name, federation.coordinator, place.run, place.round, place.attempt)
    weights = {site.name: site.weight for site in federation.sites}
    asked, excluded = whom(federation, weights, named - federation.away(moment),
                           place.round if place.trains else place.round + 1, past, chance if place.trains else None)
    out = {exclusion.site for exclusion in excluded}
    unasked = tuple(name for name in weights if name not in out and name not in asked)
    if unasked:
        federation.check_asked(asked, unasked, moment, trains=place.trains)
    return Cohort(asked, excluded, unasked, at)


def why_unasked(federation: Federation, plan: Plan, site: Name) -> str:
    """Why a plan does not ask a member that no policy excludes."""
    if plan.planned_at is not None and site in federation.away(plan.planned_at):
        return f"not there when the round was planned, {plan.planned_at:%Y-%m-%d %H:%M} UTC"
    return "not selected for this round" if federation.selection is not None else "not chosen for this round"
