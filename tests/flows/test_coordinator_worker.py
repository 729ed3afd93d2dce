"""A flow run that stops in the middle: the coordinator's process lives on, whoever stopped it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prefect import flow
from prefect.exceptions import Pause
from prefect.states import Suspended

from flows import coordinator_worker
from flows.coordinator_worker import _Running


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
