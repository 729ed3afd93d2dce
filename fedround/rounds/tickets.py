"""Who works on which plan, where answers to the plans of earlier rounds count (`Pace`).

A plan gives every member of its cohort a ticket. The ticket ends when a commit says something else of the member than
"missing"; when it is too old; and when the federation log has a new entry, since then others are members, or something else
is agreed. All of this follows from the plan and the commit of the round before, so nobody has a choice in it, and whoever has
these two documents computes the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from fedround.aggregation.staleness import Pace
from fedround.records import Commit, LogHead, Plan, Ticket
from fedround.values import Digest


def tickets_after(pace: Pace | None, plan: Plan, plan_digest: Digest, commit: Commit, log: LogHead,
                  excluded: Collection[str] = ()) -> tuple[Ticket, ...]:
    """Who still works on an earlier plan in the round after `commit`, in order of names.

    plan: the one that `commit` was made with. pace, log: of the next round. excluded: by the reputation policy.
    """
    if pace is None or plan.agreed.pace is None or plan.log != log:
        return ()
    given = [*plan.tickets, *(Ticket(site=site, round=plan.round, plan=plan_digest) for site in plan.cohort)]
    still = kept(pace, {ticket.site: ticket.round for ticket in given}, set(commit.missing) - set(excluded), commit.round + 1)
    return tuple(sorted((ticket for ticket in given if ticket.site in still), key=lambda ticket: ticket.site))


def kept(pace: Pace, given: Mapping[str, int], missing: Collection[str], number: int) -> dict[str, int]:
    """Of the tickets that were given, by site and round, those that count in round `number`."""
    return {site: asked for site, asked in given.items() if site in missing and number - asked <= pace.max_age}


def ended(plan: Plan, missing: Collection[str]) -> tuple[Ticket, ...]:
    """The tickets whose answers count for the last time in the plan's round, of members that have said nothing."""
    pace = plan.agreed.pace
    return tuple(ticket for ticket in plan.tickets
                 if ticket.site in missing and (pace is None or plan.round + 1 - ticket.round > pace.max_age))


def ages(plan: Plan) -> Mapping[str, int]:
    """How many rounds old the plan is that each member answers; of those that answer this one, 0."""
    return {**dict.fromkeys(plan.cohort, 0), **{ticket.site: plan.round - ticket.round for ticket in plan.tickets}}


def share(plan: Plan, site: str) -> float:
    """What the site's answer counts of its weight, by the age of the plan that it answers."""
    return 1.0 if plan.agreed.pace is None else plan.agreed.pace.share(ages(plan)[site])


def ticket_of(plan: Plan, site: str) -> int | None:
    """As a commit says it of an update: the earlier round whose plan it answers; None: this one's."""
    return next((ticket.round for ticket in plan.tickets if ticket.site == site), None)
