"""A worker's process ends when it is told to, and with a sentence when nothing can be served any more."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import pytest

from fedround.errors import SetupError
from infra import worker_process
from tests.prefect_answers import Open, answered


class Gone:
    """A worker whose login is taken back while it serves."""

    async def start(self, printer: object) -> None:
        raise ExceptionGroup("of a loop", [ExceptionGroup("of a request", [answered(401)])])


class Api(Open):
    """An API that serves."""

    async def read_work_pools(self, limit: int) -> list[object]:
        return []


def test_a_login_that_is_taken_back_ends_a_process_with_a_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker_process, "get_client", Api)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)
    with pytest.raises(SetupError, match="asks for a login: set PREFECT_API_AUTH_STRING"):
        asyncio.run(worker_process._serve(Gone()))


IN_THE_MIDDLE_OF_WORK = """
import asyncio, time
import anyio.to_thread
from infra.worker_process import end_when_told

async def main():
    end_when_told(asyncio.get_running_loop(), asyncio.current_task())
    print("works", flush=True)
    while True:
        try:
            await anyio.to_thread.run_sync(time.sleep, 100_000)
        except asyncio.CancelledError:
            continue

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_told_to_end_ends_although_its_work_goes_on(number: signal.Signals):
    process = subprocess.Popen([sys.executable, "-c", IN_THE_MIDDLE_OF_WORK], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"works\n"
    process.send_signal(number)
    assert process.wait(timeout=600) == 0, "its work never ends"
