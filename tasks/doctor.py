"""Why a round did not commit: what stands in the store of the newest plan, site by site, and what helps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fedround import layout
from fedround.records import Plan, Refusal, SiteAnswer
from fedround.spoken import one_line
from infra.history import NOT_OURS, last_round, read_commit, read_plan_at
from tasks.coordinator import Coordinator
from tasks.documents import said_by
from tasks.plan import Planned, planned_of
from tasks.quorum import HELPS
from validation.updates import read_answer

_LONGEST = 200


@dataclass(frozen=True)
class Finding:
    """What one site has said to the plan."""

    site: str
    said: str
    """answered, refused, not admitted, or nothing."""
    why: str
    helps: str


@dataclass(frozen=True)
class Diagnosis:
    """The state of a run's next round."""

    run: str
    committed: int | None
    """The last committed round; None: the run has not begun."""
    plan: Plan | None
    """The newest plan that waits; None: nothing waits, so nothing failed."""
    sites: tuple[Finding, ...] = ()

    @property
    def missing(self) -> int:
        """How many more answers the plan needs."""
        return 0 if self.plan is None else max(0, self.plan.quorum - sum(one.said == "answered" for one in self.sites))


def diagnose(coordinator: Coordinator, run: str) -> Diagnosis:
    """Look at the store; nothing is written. Raises StoreError, and a TrustError if the run's history is damaged."""
    store, key = coordinator.store, coordinator.key
    committed = last_round(store, run, key)
    if committed is None:
        return Diagnosis(run, None, None)
    number = committed + 1
    attempts = sorted((place[2] for name in store.list(layout.rounds(run)) if (place := layout.parse_plan(name)) is not None
                       and place[1] == number), reverse=True)
    for attempt in attempts:
        try:
            plan, named = read_plan_at(store, run, number, attempt, "train", key)
        except NOT_OURS:
            continue
        planned = planned_of(store, key, plan, named, read_commit(store, run, committed, key))
        return Diagnosis(run, committed, plan, tuple(_all(coordinator, planned)))
    return Diagnosis(run, committed, None)


def _all(coordinator: Coordinator, planned: Planned) -> Iterator[Finding]:
    for site in planned.plan.answering:
        yield _of_one(coordinator, planned.of(site), site)


def _of_one(coordinator: Coordinator, asked: Planned, site: str) -> Finding:
    plan = asked.plan
    if (found := said_by(coordinator.store, plan, site)) is None:
        return Finding(site, "nothing", "it is not running, is late, cannot reach the store, or is held by a pause",
                       "ask its operator for 'fedround site check'; 'fedround status' shows its last sign of life")
    try:
        member, revoked = coordinator.federation.site(site), coordinator.federation.revoked
        said: SiteAnswer = read_answer(found[1], plan, asked.digest, member, revoked)
    except NOT_OURS as error:
        return Finding(site, "not admitted", one_line(str(error))[:_LONGEST], "its operator looks at its log, and runs "
                       "the same version as the coordinator")
    if isinstance(said, Refusal):
        return Finding(site, "refused", one_line(f"{said.reason}: {said.detail}")[:_LONGEST], HELPS[said.reason])
    return Finding(site, "answered", "", "")
