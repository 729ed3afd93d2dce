"""Reports of rounds that were committed and not reported, or whose reports are lost: from the store alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from infra.history import last_round, read_commit, read_federation, read_plan
from tasks import spool
from tasks.collect import read_again
from tasks.coordinator import Coordinator
from tasks.evaluate import evaluate
from tasks.plan import Planned
from tasks.report import page, records, report


def catch_up(coordinator: Coordinator, run: str) -> None:
    """Write the record, the page and the version of the run's last round, if they are not there.

    Called before a run goes on, so that only the last round can lack them. How long the round took is lost: 0 seconds.
    """
    number = last_round(coordinator.store, run)
    if number is not None and number > 0 and not page(coordinator, run, number).exists():
        _report(coordinator, run, number, 0.0)


def rebuild(coordinator: Coordinator, run: str) -> Iterator[int]:
    """Write them for every round of the run, in order, whatever became of the coordinator's folder; yields each round.

    Versions that are there stay as they are. What a record says of the sites' own evaluation returns with the round after it.
    """
    known = {record.round: record.seconds for record in records(coordinator, run)}
    for number in range(1, (last_round(coordinator.store, run) or 0) + 1):
        _report(coordinator, run, number, known.get(number, 0.0))
        yield number


def _report(coordinator: Coordinator, run: str, number: int, seconds: float) -> None:
    key = coordinator.identity.key
    committed = read_commit(coordinator.store, run, number, key)
    plan = read_plan(coordinator.store, committed.commit, key)
    planned = Planned(plan, committed.commit.plan or "", read_commit(coordinator.store, run, number - 1, key))
    source = f"federation file of round {number} of run '{run}'"
    members = read_federation(coordinator.store, plan.federation_digest, key, source)
    then = dataclasses.replace(coordinator, federation=members)      # who was a member then may have left since
    collected = read_again(then, planned, committed.commit.missing)
    report(then, planned, collected, committed, evaluate(then, committed.commit), seconds)
    spool.clear(then, planned)
