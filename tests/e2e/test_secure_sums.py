"""Secure sums live: real servers, a coordinator and twelve site processes of which two are killed between the messages."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun

from fedround import layout
from infra.stack.processes import recorded
from tests.e2e.conftest import Federation, wait
from tests.e2e.founding import adding

pytestmark = pytest.mark.stack

SITES = tuple(f"site-{number:02d}" for number in range(1, 13))
FIRST, SECOND = SITES[:2], SITES[2:4]
"""Who is away in a round, and who is killed after its answer."""


@pytest.fixture(scope="module")
def twelve(short_folder: Path, rows_are_judged_here: None) -> Iterator[Federation]:
    """Twelve sites whose numbers are added up: ten must say their part, two may be missing, one may collude."""
    with adding(short_folder / "sums", SITES, {"threshold": 10, "dropouts": 2, "colluders": 1}) as federation:
        yield federation


def completed(twelve: Federation, started: UUID) -> FlowRun:
    ended = twelve.ended(started)
    assert ended.state.is_completed(), ended.state.message
    return ended


def seconds_of(twelve: Federation, started: UUID) -> dict[str, float]:
    """How long the coordinator's steps took, by name."""
    steps = twelve.ask(lambda client: client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[started]))))
    return {step.name: step.total_run_time.total_seconds() for step in steps}


def test_two_sites_that_are_away_and_two_that_die_after_their_answers(twelve: Federation, run: str):
    store, took = twelve.store, dict[int, float]()
    for number in (1, 2):
        started = twelve.start("federated-round", run=run)
        ended = completed(twelve, started)
        took[number] = ended.total_run_time.total_seconds()
        print(f"\nround {number}, undisturbed, load {os.getloadavg()[0]:.0f}:", took[number], seconds_of(twelve, started))

    for name in FIRST:
        os.kill(twelve.pid(name), signal.SIGKILL)
    started = twelve.start("federated-round", run=run, deadline_s=10 + math.ceil(4 * took[2]))
    completed(twelve, started)
    print("round 3, two away:", seconds_of(twelve, started))
    assert twelve.record(run, 3)["outcomes"] == {name: "missing" if name in FIRST else "updated" for name in SITES}
    for name in FIRST:
        twelve.spawn("site", "start", str(twelve.machine.site(name)))

    for name in SITES:
        (twelve.machine.site(name) / "hold").touch()
    coordinator = psutil.Process(recorded(twelve.machine.home)["coordinator"])
    started = twelve.start("federated-round", run=run)
    wait(lambda: store.head(layout.plan(run, 4, 1, "train")), "the plan of round 4")
    wait(lambda: all(len(twelve.charges(name, run)) == 3 + (name not in FIRST) for name in SITES), "all charges")
    coordinator.suspend()
    try:
        for name in SITES:
            (twelve.machine.site(name) / "hold").unlink()
        wait(lambda: all(store.head(layout.answer(name, run, 4, 1, "train")) for name in SITES), "twelve masked answers")
        for name in SECOND:
            os.kill(twelve.pid(name), signal.SIGKILL)
    finally:
        coordinator.resume()
    completed(twelve, started)
    print("round 4, two that reveal nothing:", seconds_of(twelve, started))
    assert set(twelve.record(run, 4)["outcomes"].values()) == {"updated"}
    for name in SECOND:
        assert not list(store.list(f"{layout.of_run(name, run)}reveals/00003/"))
        twelve.spawn("site", "start", str(twelve.machine.site(name)))

    done = twelve.here("verify", run, "--as", twelve.machine.coordinator, "--recompute", "--json")
    assert done.exit_code == 0, done.stderr
    assert [one["recomputed"] for one in json.loads(done.stdout)["rounds"]][1:] == [True] * 4
