"""Why a round did not commit, or a question has no result: what stands in the store of each plan that waits, site by site,
and what helps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import get_args

from fedround import layout
from fedround.records import Countersign, Plan, Refusal, Reveal, SiteAnswer
from fedround.spoken import one_line
from fedround.values import Purpose
from infra.documents import NOT_OURS
from infra.history import last_round, read_commit, read_plan_at
from tasks import partial_sums
from tasks.coordinator import Coordinator
from tasks.documents import said_by
from tasks.plan import Planned, planned_of
from tasks.quorum import HELPS
from validation.updates import read_answer

_LONGEST = 200


class Word(StrEnum):
    """What became of a plan at one who was asked."""

    ANSWERED = "answered"
    REFUSED = "refused"
    NOT_ADMITTED = "not admitted"
    NOTHING = "nothing"


@dataclass(frozen=True)
class SaidToPlan:
    """What one site, or one region's coordinator, has said to the plan."""

    site: str
    said: Word
    why: str
    helps: str


@dataclass(frozen=True)
class Waiting:
    """A plan that nothing has come of yet."""

    plan: Plan
    sites: tuple[SaidToPlan, ...]
    regions: tuple[SaidToPlan, ...] = ()

    @property
    def missing(self) -> int:
        """How many more answers the plan needs."""
        return max(0, self.plan.quorum - sum(one.said is Word.ANSWERED for one in self.sites))

    @property
    def is_held(self) -> bool:
        """Whether it cannot go on: too few have answered, or a region has not added up."""
        return self.missing > 0 or any(one.said is not Word.ANSWERED for one in self.regions)


@dataclass(frozen=True)
class Diagnosis:
    """The state of a run's next round, and of the questions about its last model."""

    run: str
    committed: int | None
    """The last committed round; None: the run has not begun."""
    waits: tuple[Waiting, ...] = ()
    """The newest plan that waits, of each kind; none: nothing waits, so nothing failed."""


def diagnose(coordinator: Coordinator, run: str) -> Diagnosis:
    """Look at the store; nothing is written. Raises StoreError, and a TrustError if the run's history is damaged."""
    committed = last_round(coordinator.store, run, coordinator.key)
    if committed is None:
        return Diagnosis(run, None)
    places = [place for name in coordinator.store.list(layout.plans(run)) if (place := layout.parse_plan(name)) is not None]
    found = [planned for purpose in get_args(Purpose) if (planned := _newest(coordinator, run, committed, purpose, {
        place[1:3] for place in places if place[3] == purpose})) is not None]
    digests = {planned.digest for planned in found}
    return Diagnosis(run, committed, tuple(
        Waiting(planned.plan, tuple(_all(coordinator, planned)), tuple(_regions(coordinator, planned))) for planned in found
        if not isinstance(planned.plan.asks, Countersign | Reveal) or planned.plan.asks.of in digests))


def _newest(coordinator: Coordinator, run: str, committed: int, purpose: Purpose, places: Collection[tuple[int, int]]
            ) -> Planned | None:
    """The newest plan for this purpose that follows the committed round; None: there is none, or something came of it."""
    store, key = coordinator.store, coordinator.key
    number = committed + (purpose == "train")
    for attempt in sorted((attempt for of, attempt in places if of == number), reverse=True):
        try:
            plan, named = read_plan_at(store, run, number, attempt, purpose, key)
        except NOT_OURS:
            continue
        if not plan.asks.makes_model and store.head(layout.finding(run, number, attempt, purpose)) is not None:
            return None
        return planned_of(store, key, plan, named, read_commit(store, run, committed, key))
    return None


def _all(coordinator: Coordinator, planned: Planned) -> Iterator[SaidToPlan]:
    for site in planned.plan.answering:
        yield _of_one(coordinator, planned.of(site), site)


def _regions(coordinator: Coordinator, planned: Planned) -> Iterator[SaidToPlan]:
    plan = planned.plan
    for region in plan.agreed.regions if plan.by_region else ():
        if not region.asked(plan.cohort):
            continue
        try:
            said = partial_sums.newest(coordinator.store, planned, region)
        except NOT_OURS as error:
            yield SaidToPlan(region.name, Word.NOT_ADMITTED, one_line(str(error))[:_LONGEST],
                             "its operator looks at its log, and runs the same version as the coordinator")
            continue
        yield (SaidToPlan(region.name, Word.ANSWERED, "", "") if said is not None else
               SaidToPlan(region.name, Word.NOTHING, "it has not added up its members' updates: it is not running, is late, "
                          "or cannot reach the store", "ask its operator to run 'fedround region start'"))


def _of_one(coordinator: Coordinator, asked: Planned, site: str) -> SaidToPlan:
    plan = asked.plan
    if (found := said_by(coordinator.store, plan, site)) is None:
        return SaidToPlan(site, Word.NOTHING, "it is not running, is late, cannot reach the store, or is held by a pause",
                          "ask its operator for 'fedround site check'; 'fedround status' shows its last sign of life")
    try:
        member, revoked = coordinator.federation.site(site), coordinator.federation.revoked
        said: SiteAnswer = read_answer(found[1], plan, asked.digest, member, revoked)
    except NOT_OURS as error:
        return SaidToPlan(site, Word.NOT_ADMITTED, one_line(str(error))[:_LONGEST], "its operator looks at its log, and runs "
                          "the same version as the coordinator")
    if isinstance(said, Refusal):
        return SaidToPlan(site, Word.REFUSED, one_line(f"{said.reason}: {said.detail}")[:_LONGEST], HELPS[said.reason])
    return SaidToPlan(site, Word.ANSWERED, "", "")
