"""A flow run that stops in the middle: the coordinator's process lives on, whoever stopped it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import Pause
from prefect.states import Cancelled, Cancelling, Running, Scheduled, State, Suspended

from flows import coordinator_worker
from flows.coordinator_worker import _Running, is_made_up


@flow
async def work(request: str) -> str:
    return request


class Client:
    """Stands where Prefect makes a client that needs a server."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def run(monkeypatch: pytest.MonkeyPatch, error: BaseException, *, works: bool) -> _Running:
    """A run that Prefect's engine ends with this error. works: after it has called the flow."""
    async def engine(flow: Any, **_: object) -> None:
        if works:
            assert await flow.fn("x") == "x"
        raise error

    monkeypatch.setattr(coordinator_worker, "run_flow_async", engine)
    monkeypatch.setattr(coordinator_worker.SyncClientContext, "get_or_create", Client)
    running = _Running(work, None, "x")     # type: ignore[arg-type]
    running.run()
    return running


@pytest.mark.parametrize("works", [True, False])
def test_a_run_that_is_suspended_ends_without_the_process(monkeypatch, works):
    running = run(monkeypatch, Pause(state=Suspended()), works=works)
    assert (running.suspended, running.finished) == (True, works)


def test_a_run_that_is_cancelled_is_not_suspended(monkeypatch):
    assert not run(monkeypatch, asyncio.CancelledError(), works=False).suspended


def due(day: int, *, scheduled: bool = True) -> FlowRun:
    return FlowRun(flow_id=uuid4(), auto_scheduled=scheduled, expected_start_time=datetime(2026, 3, day, 3, tzinfo=UTC))


def test_times_that_were_missed_are_made_up_by_the_last_of_them():
    monday, tuesday = due(2), due(3)
    assert is_made_up(monday, [monday, tuesday])
    assert not is_made_up(tuesday, [monday, tuesday])
    assert not is_made_up(monday, [monday, due(3, scheduled=False)]), "what a person asks for is no time of the schedule"


# -- what a killed process leaves ---------------------------------------------------------------------------------------


class Server:
    """Flow runs that a dead process of the coordinator has left, and what becomes of them."""

    def __init__(self, **left: tuple[str, State]):
        self.names = {uuid4(): name for name in left}
        self.runs = {run: FlowRun(id=run, flow_id=run, state=left[name][1]) for run, name in self.names.items()}
        self.flows = {run: left[name][0] for run, name in self.names.items()}

    async def read_flow_runs(self, *, flow_run_filter: Any, work_pool_filter: Any) -> list[FlowRun]:
        return [run for run in self.runs.values() if run.state.type in flow_run_filter.state.type.any_]

    async def request(self, method: str, path: str, json: Any) -> SimpleNamespace:
        assert path == "/flow_runs/count"
        asked = json["flow_runs"]
        count = sum(str(run) in asked["id"]["any_"] and found.state.type in asked["state"]["type"]["any_"]
                    for run, found in self.runs.items())
        return SimpleNamespace(json=lambda: count)

    async def set_flow_run_state(self, run: UUID, state: State, *, force: bool) -> None:
        self.runs[run] = FlowRun(id=run, flow_id=run, state=state)

    @property
    def states(self) -> dict[str, str]:
        return {name: self.runs[run].state.name for run, name in self.names.items()}


async def test_what_somebody_has_stopped_is_not_revived_by_a_restart(monkeypatch: pytest.MonkeyPatch):
    server = Server(goes_on=("federated-training", Running()), aborted=("federated-training", Cancelling()),
                    one_round=("federated-round", Running()), waits=("federated-training", Scheduled()),
                    was_aborted=("federated-training", Cancelled()))
    worker = coordinator_worker.CoordinatorWorker.__new__(coordinator_worker.CoordinatorWorker)
    monkeypatch.setattr(worker, "_client", server, raising=False)
    monkeypatch.setattr(worker, "_work_pool_name", "small-coordinator", raising=False)

    async def flow_name(flow_id: UUID) -> str:
        return server.flows[flow_id]

    monkeypatch.setattr(worker, "_flow_name", flow_name, raising=False)
    await worker._close_runs_of_a_dead_predecessor()
    assert server.states == {"goes_on": "Scheduled", "aborted": "Cancelled", "one_round": "Crashed", "waits": "Scheduled",
                             "was_aborted": "Cancelled"}
