"""Reports of rounds that were committed and not reported, or whose reports are lost. They are made from the store alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from datetime import datetime

from fedround.records import Plan
from infra.documents import read_federation
from infra.history import Committed, findings, read_commit, read_finding, read_plan, read_plan_at
from tasks import compare_groups, contribution, spool
from tasks.afterwards import afterwards
from tasks.collect import as_committed, read_again
from tasks.coordinator import Coordinator
from tasks.evaluate import evaluate
from tasks.plan import Planned, planned_of
from tasks.report import is_reported, record_evaluation, records, report
from tasks.reporting.record import NOT_TIMED, Timing, timing_of

_ROUNDS_BACK = 10
"""Before a round begins. Older ones wait for 'fedround models rebuild'."""


def catch_up(coordinator: Coordinator, run: str, tell: Callable[[str], None] | None = None) -> None:
    """Write the record, the page and the version of the run's last rounds, if they are not there.

    Called before a run goes on. How long the rounds took, and when they ended, is lost. If a report fails again, `tell` is
    told the reason (None: the log is), and the run goes on.
    """
    last = coordinator.last_round(run) or 0
    for number in range(max(1, last - _ROUNDS_BACK + 1), last + 1):
        if not is_reported(coordinator, run, number):
            with afterwards(f"the report of round {number}", *([] if tell is None else [tell])):
                _report(coordinator, run, number, 0.0)


def rebuild(coordinator: Coordinator, run: str) -> Iterator[int]:
    """Write them for every round of the run, in order, even if the coordinator's folder was lost; yields each round.

    Versions that are there stay as they are.
    """
    known = {record.round: (record.seconds, record.ended, timing_of(record)) for record in records(coordinator, run)}
    for number in range(1, (coordinator.last_round(run) or 0) + 1):
        _report(coordinator, run, number, *known.get(number, (0.0,)))
        yield number


def _report(coordinator: Coordinator, run: str, number: int, seconds: float, ended: datetime | None = None,
            timing: Timing = NOT_TIMED) -> None:
    key = coordinator.key
    committed = read_commit(coordinator.store, run, number, key)
    plan = read_plan(coordinator.store, committed.commit, key)
    parent, then = read_commit(coordinator.store, run, number - 1, key), _as_of(coordinator, plan)
    planned = planned_of(coordinator.store, key, plan, committed.commit.plan or "", parent)
    collected = as_committed(read_again(then, planned, committed.commit.missing), committed.commit)
    spool.clear(then, planned)                  # killed after the report, nobody would look for what lies there
    report(then, planned, collected, committed, evaluate(then, committed.commit), seconds, ended, timing)
    _evaluations(coordinator, committed)
    compare_groups.tell(then, committed.commit)
    contribution.tell(then, run, number)


def _evaluations(coordinator: Coordinator, committed: Committed) -> None:
    """Record the evaluations at the sites of the round's model that were asked as a question of their own."""
    commit, key = committed.commit, coordinator.key
    for number, attempt in findings(coordinator.store, commit.run, "evaluate"):
        if number == commit.round:
            plan, named = read_plan_at(coordinator.store, commit.run, number, attempt, "evaluate", key)
            planned, then = Planned(plan, named, committed), _as_of(coordinator, plan)
            finding = read_finding(coordinator.store, commit.run, number, attempt, "evaluate", key)
            record_evaluation(then, planned, read_again(then, planned, finding.missing),
                              finding.totals if plan.asks.slot is not None else ())


def _as_of(coordinator: Coordinator, plan: Plan) -> Coordinator:
    """With the federation file that the plan names: a member of that time may have left since."""
    return dataclasses.replace(coordinator, federation=read_federation(
        coordinator.store, plan.federation_digest, coordinator.key,
        f"federation file of round {plan.round} of run '{plan.run}'"))
