"""A round that was committed by a process which died before it reported: report it now, from the store alone."""

from __future__ import annotations

import dataclasses

from fedround import layout
from fedround.signing import MAX_DOCUMENT_BYTES, unseal
from fedround.types import Federation
from tasks import spool
from tasks.collect import read_again
from tasks.coordinator import Coordinator
from tasks.evaluate import evaluate
from tasks.history import last_round, read_commit, read_plan
from tasks.plan import Planned
from tasks.report import page, report


def catch_up(coordinator: Coordinator, run: str) -> None:
    """Write the record, the page and the version of the run's last round, if they are not there.

    Called before a run goes on, so that only the last round can lack them. How long the round took is lost: 0 seconds.
    """
    number, key = last_round(coordinator.store, run), coordinator.identity.key
    if number is None or number == 0 or page(coordinator, run, number).exists():
        return
    committed = read_commit(coordinator.store, run, number, key)
    plan, digest = read_plan(coordinator.store, committed.commit, key)
    planned = Planned(plan, digest, read_commit(coordinator.store, run, number - 1, key))
    document = coordinator.store.get(layout.federation(plan.federation_digest), max_bytes=MAX_DOCUMENT_BYTES)
    members = unseal("federation", document, Federation, key, f"federation file of round {number} of run '{run}'")
    then = dataclasses.replace(coordinator, federation=members)      # who was a member then may have left since
    collected = read_again(then, planned, committed.commit.missing)
    report(then, planned, collected, committed, evaluate(then, committed.commit), 0.0)
    spool.clear(then, planned)
