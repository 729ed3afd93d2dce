"""Nothing that a command starts outlives it, unless it says so: a small process waits for the command's end.

    python -m infra.watcher HOME TOKEN           # begun by `watched`, before anything else is

The command holds a pipe to it. The system closes the pipe when the command ends, also by SIGKILL, and the watcher cannot miss
that. If the command has left something then, the processes and servers below HOME are stopped in order, as `fedround down`
does. All children of the command, and their children, inherit the token. A process that still has it afterwards is ended too.
If the command has begun nothing, what ran before it goes on.

Until then the watcher needs only Python itself, 10 MB. Not promised: anything if the watcher is killed first.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from fedround.errors import SetupError
from infra.mark import MARK

_KEEP = b"k"
_LOCK = ".ending"
_GENTLY_S, _IN_ALL_S = 5.0, 30.0
_LOOK_S = 0.3


@contextmanager
def watched(home: Path) -> Iterator[Callable[[], None]]:
    """While this lasts, everything that this process starts ends with it; yields what to call if it is to live on.

    SIGTERM and SIGHUP end the command as Ctrl-C does, so that it can stop in order what it has begun.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _ending(home):
            pass                        # what an earlier command left is being stopped: let that end first
    except OSError as error:
        raise SetupError(f"cannot use the folder {home}: {error.strerror}") from None
    token, before = secrets.token_hex(16), os.environ.get(MARK)
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    watcher = subprocess.Popen([sys.executable, "-P", "-m", __name__, str(home.resolve()), token], stdin=subprocess.PIPE,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
                               env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    os.environ[MARK] = token

    def keep() -> None:
        if watcher.stdin is not None and watcher.poll() is None:
            with suppress(OSError):
                watcher.stdin.write(_KEEP)
                watcher.stdin.flush()

    try:
        with _told_to_end():
            yield keep
    finally:
        os.environ.pop(MARK)
        if before is not None:
            os.environ[MARK] = before
        if watcher.stdin is not None:
            watcher.stdin.close()
        watcher.wait()


@contextmanager
def _told_to_end() -> Iterator[None]:
    """SIGTERM and SIGHUP as an exception, where this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _ending(home: Path) -> Iterator[None]:
    """One command's remains at a time."""
    with (home / _LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _watch(home: Path, token: str) -> None:
    """Wait for the command's end, or for its message that what it has started is to live on."""
    if os.read(sys.stdin.fileno(), 1) == _KEEP or not home.is_dir():
        return
    with _ending(home):
        if _left(home, token):
            try:
                _stop(home)
            finally:
                _sweep(home, token)


def _stop(home: Path) -> None:
    """What is written down below `home`, in order; what cannot be read there is swept afterwards."""
    from infra.stack import LocalStack
    from infra.stack.processes import stop_recorded

    for stop in (lambda: stop_recorded(home), lambda: LocalStack(home).stop()):
        with suppress(Exception):
            stop()


def _sweep(home: Path, token: str) -> None:
    """What was begun and not yet written down, and children of children: gently at first."""
    began, gone = time.monotonic(), 0
    while gone < 3 and time.monotonic() - began < _IN_ALL_S:      # thrice nothing: what was forking has forked
        left = _left(home, token)
        gone = 0 if left else gone + 1
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM if time.monotonic() - began < _GENTLY_S else signal.SIGKILL)
        time.sleep(_LOOK_S)


def _left(home: Path, token: str) -> list[int]:
    """Living processes that carry the token; and PostgreSQL, which writes over its environment, if it is younger than we."""
    import psutil

    began, data, found = psutil.Process().create_time(), {home / "postgres", home / "postgres.unfinished"}, []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            mine = process.environ().get(MARK) == token or (
                process.name() == "postgres" and Path(process.cwd()) in data and process.create_time() >= began
                and ((parent := process.parent()) is None or parent.name() != "postgres"))
            if mine and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


if __name__ == "__main__":
    _watch(Path(sys.argv[1]), sys.argv[2])
