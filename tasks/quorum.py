"""Whether enough sites answered; if not, who did not, why, and what helps."""

from __future__ import annotations

from collections.abc import Sequence

from fedround.errors import QuorumError
from fedround.records import Reason
from fedround.spoken import one_line
from tasks.collected import Collected
from tasks.coordinator import Coordinator
from tasks.plan import Planned
from tasks.sighted import shown

_MOST, _LONGEST = 8, 160
"""How many sites of a kind are named, and how much of what each says is repeated."""

HELPS: dict[Reason, str] = {
    Reason.POLICY: "its operator allows what the plan asks, or the federation asks for less",
    Reason.CONTRACT: "its operator mends the rows: 'fedround site check' there says what is wrong",
    Reason.BUDGET: "its operator raises max_epsilon, or the federation asks for what costs less: asking again does not help",
    Reason.DATA: "its operator brings rows: 'fedround site check' there says what is missing",
    Reason.ROLLBACK: "its operator runs 'fedround site recover': the folder was restored from a backup",
    Reason.HOURS: "the round is run again in that site's hours",
    Reason.LIMITS: "its operator raises the limits in policy.toml, or the plan asks for less work",
    Reason.KEYS: "the round is run again: new keys are set up first. If a member is named every time, ask its operator",
    Reason.FAILED: "its operator mends what the site's log names",
}
"""What makes a site that refused for this reason answer."""


def check_quorum(planned: Planned, collected: Collected) -> None:
    """Raises QuorumError, which names the sites that gave nothing, with their reasons and what helps."""
    plan, admitted = planned.plan, len(collected.admitted)
    if admitted >= plan.quorum:
        return
    what, nothing = ("an update", "committed") if plan.asks.makes_model else ("an answer", "published")
    raise QuorumError(
        f"{planned.in_words}: {admitted} of {len(plan.cohort)} sites gave {what}, the quorum is {plan.quorum}. "
        f"{_became_of(collected)}. Nothing is {nothing}. {_advice(collected)}")


def check_shown(coordinator: Coordinator, planned: Planned, collected: Collected) -> None:
    """Raises QuorumError if no site would answer the next plan, because too few members have sighted what it rests on."""
    majority = shown(coordinator.store, coordinator.key, planned, coordinator.federation)
    if (lacks := majority.lacks(collected.admitted)) == 0:
        return
    raise QuorumError(
        f"{planned.in_words}: in its last rounds, and now, {majority.needed - lacks} of {len(coordinator.federation.sites)} "
        f"members have answered, and sites go on only where {majority.needed} have: others may see another history. "
        f"{_became_of(collected)}. Nothing is committed. {_advice(collected)}")


def _became_of(collected: Collected) -> str:
    refused = [f"{site} ({_in_its_words(str(no.refusal.reason), no.refusal.detail)})"
               for site, no in sorted(collected.refused.items())]
    rejected = [f"{site} ({_in_its_words(no.reason)})" for site, no in sorted(collected.rejected.items())]
    return "; ".join(f"{what} {len(sites)}: {_some(sites)}" for what, sites in (
        ("refused", refused), ("not admitted", rejected), ("no answer", collected.missing)) if sites)


def _in_its_words(*said: str) -> str:
    """Short, and on one line: a site may say anything."""
    return one_line(": ".join(filter(None, said)))[:_LONGEST]


def _some(sites: Sequence[str]) -> str:
    more = len(sites) - _MOST
    return ", ".join(sites[:_MOST]) + (f", and {more} more" if more > 0 else "")


def _advice(collected: Collected) -> str:
    """What helps against every reason there is; last what always holds."""
    reasons = sorted({no.refusal.reason for no in collected.refused.values()})
    told = [f"A site that refused for '{reason}' answers when {HELPS[reason]}" for reason in reasons]
    if collected.missing:
        told.append("A site without an answer is not running, is late, or cannot reach the store: ask its operator")
    return ". ".join([*told, "Then run it again: answers that are there count"])

