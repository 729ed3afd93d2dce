"""A worker's process: serves one pool until it is told to end, and ends soon when it is."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from contextlib import suppress
from typing import Any

import httpx
import uvloop
from prefect import get_client

from fedround.errors import SetupError
from infra.api_problems import NOT_SERVED, problem
from infra.warm_worker import WarmWorker

_END_S = 6.0
"""How long a process that was told to end may need, before it is ended in the middle of its work."""


def serve(worker: WarmWorker) -> None:
    """Serve the worker's pool until SIGTERM or SIGINT. Raises SetupError if the API cannot be reached."""
    uvloop.run(_serve(worker))


async def _serve(worker: WarmWorker) -> None:
    end_when_told(asyncio.get_running_loop(), asyncio.current_task())
    with suppress(asyncio.CancelledError):
        try:
            async with get_client() as client:
                await client.read_work_pools(limit=1)           # /health asks for no login
        except NOT_SERVED as error:
            raise SetupError(problem(os.environ["PREFECT_API_URL"], error, "check api_url")) from None
        try:
            await worker.start(printer=lambda _: None)
        except* httpx.HTTPError as errors:      # a login that was taken back, say, or it went away before all was begun
            raise SetupError(problem(os.environ["PREFECT_API_URL"], _first(errors), "check api_url")) from None


def end_when_told(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any] | None) -> None:
    """At SIGTERM or SIGINT cancel the task. If that does not end the process in some seconds, end it where it is."""
    def end() -> None:
        if task is not None:
            task.cancel()
        killer = threading.Timer(_END_S, _end_at_once)
        killer.daemon = True
        killer.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)


def _end_at_once() -> None:
    """Work in progress goes on until it looks up, which may be long. A process may be killed at any point, so it need not end
    its work: the next one goes on.
    """
    logging.getLogger("fedround").info("stopped in the middle of work: the next process goes on")
    logging.shutdown()
    os._exit(0)


def _first(errors: BaseExceptionGroup[Any]) -> Exception:
    one = errors.exceptions[0]
    return _first(one) if isinstance(one, BaseExceptionGroup) else one
