"""What a command has started ends with it, however it ends and whenever, unless the command says that it is to live on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from infra import watcher

PATIENCE_S = 120.0      # never waited for, unless a test fails
COMMAND = """
import subprocess, sys, time
from pathlib import Path
from infra.stack.server import Server, clean_environment
from infra.watcher import watched

home, stage, keeps = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "keep"
nested = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(3600)'])"
stubborn = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (2, 15)]; time.sleep(3600)"
with watched(home) as keep:
    if stage > 0:       # begun and not yet written down, with a child of its own
        subprocess.Popen([sys.executable, "-c", nested], stdout=subprocess.DEVNULL, start_new_session=True)
    if stage > 1:       # a server as the stack's are
        Server(home, "s3").spawn([sys.executable, "-c", nested, str(home)], clean_environment(), home)
    if stage > 2:
        subprocess.Popen([sys.executable, "-c", stubborn], start_new_session=True)
    if keeps:
        keep()
    print("here", flush=True)
    time.sleep(3600)
"""


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Begins the command; what it says it has reached, it has."""
    mark = {"WATCHED_TEST": str(tmp_path)}

    def run(stage: int, keeps: str = "") -> subprocess.Popen[bytes]:
        command = subprocess.Popen([sys.executable, "-c", COMMAND, str(tmp_path), str(stage), keeps or "no"],
                                   stdout=subprocess.PIPE, env={**os.environ, **mark})
        assert command.stdout is not None
        assert command.stdout.readline() == b"here\n"
        return command

    yield run
    for process in of(tmp_path):
        process.kill()


def of(home: Path) -> list[psutil.Process]:
    """All that carries the test's mark, or the folder's name: servers inherit few variables."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = process.environ().get("WATCHED_TEST") == str(home) or str(home) in process.cmdline() or (
                Path(process.cwd()) == home and process.pid != os.getpid())
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.3)


@pytest.mark.parametrize(("stage", "number"), [
    (1, signal.SIGKILL), (3, signal.SIGKILL), (3, signal.SIGTERM), (0, signal.SIGHUP)])
def test_all_that_it_has_started_ends_with_it(begin: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, stage: int,
                                              number: signal.Signals) -> None:
    command = begin(stage)
    wait_until(lambda: len(of(tmp_path)) >= 2 + stage)      # the command, its watcher, and what it has started
    command.send_signal(number)
    assert command.wait() == (-9 if number == signal.SIGKILL else 128 + number)
    wait_until(lambda: of(tmp_path) == [])


def test_what_is_to_live_on_lives_on(begin: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    command = begin(2, "keep")
    wait_until(lambda: not [one for one in of(tmp_path) if "infra.watcher" in one.cmdline()])     # it has heard, and gone
    command.kill()
    command.wait()
    wait_until(lambda: len(of(tmp_path)) == 4)      # two, and a child of each
    kept = {process.pid for process in of(tmp_path)}
    second = begin(0)
    second.kill()
    second.wait()
    wait_until(lambda: len(of(tmp_path)) <= 4)
    assert {process.pid for process in of(tmp_path)} == kept, "one that has begun nothing leaves them as they are"


def test_what_is_written_down_and_cannot_be_read_saves_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    swept = []
    monkeypatch.setattr(watcher, "_left", lambda *_: [1])
    monkeypatch.setattr(watcher, "_sweep", lambda *_: swept.append(1))
    monkeypatch.setattr("infra.stack.processes.stop_recorded", lambda home: {}["no such key"])
    monkeypatch.setattr("infra.stack.LocalStack.stop", lambda self: int("no number"))
    with monkeypatch.context() as patch, open(os.devnull, "rb") as closed:
        patch.setattr(sys, "stdin", closed)
        watcher._watch(tmp_path, "token")
    assert swept == [1]
