"""What a worker does with an announced run, against a client that answers as Prefect's server may.

The server itself is in `test_prefect_contract.py` and `tests/e2e`.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import anyio
import httpx
import pytest
from prefect.client.schemas.objects import FlowRun, WorkPool
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.events import Event
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Scheduled, State
from prefect.workers.base import BaseWorker

from infra import warm_worker
from site_workers.worker import SiteWorker
from tests.prefect_answers import Open, answered

NOW = datetime.now(UTC)


class Server:
    """Knows one run, from the moment when it has been asked `late` times."""

    def __init__(self, due: datetime, state: State | None = None, late: int = 0):
        self.run = FlowRun(id=uuid.uuid4(), flow_id=uuid.uuid4(), state=state or Scheduled(scheduled_time=due),
                           work_queue_id=uuid.uuid4(), next_scheduled_start_time=due)
        self._late = late

    async def read_flow_run(self, run_id: uuid.UUID) -> FlowRun:
        assert run_id == self.run.id
        self._late -= 1
        if self._late >= 0:
            raise ObjectNotFound(RuntimeError("404"))
        return self.run


class Worker(SiteWorker):
    """Notes what it would begin."""

    type = "fedround-noting"

    def __init__(self, server: Server):
        super().__init__("north", lambda parameters, cancelled: "done")
        self._client = server
        self._work_pool = WorkPool(name="north", type=self.type, default_queue_id=uuid.uuid4())
        self.begun: list[uuid.UUID] = []

    async def _submit_scheduled_flow_runs(self, flow_run_response: list[WorkerFlowRunResponse]) -> list[FlowRun]:
        self.begun += [response.flow_run.id for response in flow_run_response]
        return []


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_worker, "_PATIENCE_S", (0.0, 0.0, 0.0))


async def heard(server: Server, announced: datetime = NOW, busy: bool = False) -> Worker:
    """The worker, after it has heard of the server's run."""
    worker = Worker(server)
    worker._limiter = anyio.CapacityLimiter(1)
    if busy:
        worker._limiter.acquire_on_behalf_of_nowait("another run")
    await worker._submit_if_due(server.run.id, announced)
    return worker


async def test_a_run_that_is_due_begins():
    server = Server(due=NOW)
    assert (await heard(server)).begun == [server.run.id]


@pytest.mark.parametrize("late", [1, 2])
async def test_a_run_that_is_announced_before_it_can_be_read_begins_all_the_same(late: int):
    """Prefect announces a run within the transaction that makes it; to wait for a poll would cost a round ten seconds."""
    server = Server(due=NOW, late=late)
    assert (await heard(server)).begun == [server.run.id]


async def test_a_run_that_never_comes_is_left_to_the_poll_and_the_worker_listens_on():
    assert (await heard(Server(due=NOW, late=100))).begun == []


async def test_a_clock_that_is_behind_makes_no_site_late():
    """The coordinator's machine says when a run is due; here it is five minutes earlier."""
    ahead = NOW + timedelta(minutes=5)
    server = Server(due=ahead)
    assert (await heard(server, announced=ahead + timedelta(seconds=1))).begun == [server.run.id]


async def test_a_run_for_tomorrow_is_left_to_the_poll():
    assert (await heard(Server(due=NOW + timedelta(days=1)))).begun == []


async def test_a_run_that_is_over_is_not_begun():
    assert (await heard(Server(due=NOW, state=Completed()))).begun == []


async def test_who_is_busy_asks_when_it_is_done():
    worker = await heard(Server(due=NOW), busy=True)
    assert worker.begun == []
    assert worker._heard_while_busy


NOTHING_TO_END_FOR = [
    httpx.ConnectError("away"), ObjectNotFound(RuntimeError("404")), ValueError("no JSON"), KeyError("id"),
    *(answered(status) for status in (400, 403, 404, 405, 407, 409, 422, 429, 500, 502, 503, 504))]


@pytest.mark.parametrize("error", NOTHING_TO_END_FOR, ids=lambda error: type(error).__name__ + str(error)[:4])
async def test_no_answer_of_the_api_ends_the_process(error: Exception, monkeypatch: pytest.MonkeyPatch):
    """Not of a run that somebody deletes while it is looked at, and not of a proxy in the API's place."""
    async def fails(*_: object) -> None:
        raise error

    worker = Worker(Server(due=NOW))
    monkeypatch.setattr(BaseWorker, "get_and_submit_flow_runs", fails)
    monkeypatch.setattr(BaseWorker, "sync_with_backend", fails)
    assert await worker.get_and_submit_flow_runs() == []
    await worker.sync_with_backend()


async def test_only_a_login_that_is_taken_back_ends_it(monkeypatch: pytest.MonkeyPatch):
    async def fails(*_: object) -> None:
        raise answered(401)

    worker = Worker(Server(due=NOW))
    monkeypatch.setattr(BaseWorker, "get_and_submit_flow_runs", fails)
    monkeypatch.setattr(BaseWorker, "sync_with_backend", fails)
    for ask in (worker.get_and_submit_flow_runs, worker.sync_with_backend):
        with pytest.raises(httpx.HTTPStatusError):
            await ask()


async def test_a_run_that_somebody_deletes_at_any_moment_of_its_work_ends_nothing_else():
    """The worker has read it, works, and may write its end no more: neither the end that it had, nor that it failed."""
    server = Server(due=NOW)

    async def gone(*_: object, **__: object) -> None:
        raise ObjectNotFound(RuntimeError("404"))

    server.set_flow_run_state = server.read_flow = server.request = gone
    worker = Worker(server)
    worker._limiter = anyio.CapacityLimiter(1)
    worker._limiter.acquire_on_behalf_of_nowait(server.run.id)
    worker._submitting_flow_run_ids.add(server.run.id)
    await worker._submit_run(server.run)
    assert worker._limiter.borrowed_tokens == 0


@pytest.mark.parametrize("error", NOTHING_TO_END_FOR, ids=lambda error: type(error).__name__ + str(error)[:4])
async def test_what_goes_wrong_in_work_beside_the_rest_is_logged_and_ends_nothing(
        error: Exception, caplog: pytest.LogCaptureFixture):
    times = []

    async def looks() -> None:
        times.append(error)
        if len(times) < 3:
            raise error

    worker = Worker(Server(due=NOW))
    worker._logger = logging.getLogger("tried")
    async with anyio.create_task_group() as worker._runs_task_group:
        worker._begin(worker._every, lambda: 0.0, looks)
        while len(times) < 5:
            await anyio.sleep(0)
        worker._runs_task_group.cancel_scope.cancel()
    assert [record.getMessage() for record in caplog.records].count(f"looks: {warm_worker._named(error)}") == 2


async def test_attack_events_that_are_none_make_nobody_deaf(monkeypatch: pytest.MonkeyPatch):
    """Whoever holds the API's key can send an event about anything. What comes after it is heard."""
    server, about = Server(due=NOW), "prefect.flow-run."
    events = [Event(event="prefect.flow-run.Scheduled", occurred=NOW, resource={"prefect.resource.id": resource})
              for resource in ("nothing", about, f"{about}7", f"{about}{server.run.id}")]

    class Stream(Open):
        async def __aiter__(self) -> AsyncIterator[Event]:
            for event in events:
                yield event

    monkeypatch.setattr(warm_worker, "get_events_subscriber", lambda **_: Stream())
    worker = Worker(server)
    worker._limiter, worker._has_successfully_synced = anyio.CapacityLimiter(1), True
    worker.get_and_submit_flow_runs = lambda: asyncio.sleep(0)
    await worker._listen_for(*worker._wake_ups())
    assert worker.begun == [server.run.id]
