"""One server process of the stack: started here or by an earlier process, and stopped by either."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from fedround.errors import SetupError
from fedround.files import write_whole
from infra.mark import MARK

_KILL_PATIENCE_S = 10.0


class Server:
    """A process that outlives the one that started it, known by a record on disk: its pid and its command line.

    The pid alone may by now belong to another process. So a process is ours only while its command line is the recorded one,
    which names this server's own data folder or port. The clock is not used, since it may be set.
    """

    def __init__(self, home: Path, name: str):
        self.name = name
        self.log = home / "logs" / f"{name}.log"
        self._record = home / "run" / f"{name}.json"
        self._child: subprocess.Popen[bytes] | None = None

    def spawn(self, command: list[str], environment: dict[str, str], folder: Path, user: str | None = None) -> None:
        """Start `command` in `folder` with exactly this environment, out of reach of the terminal's Ctrl-C.

        Raises SetupError if it cannot be started. `wait_ready` says whether it came up.
        """
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            try:
                self._child = subprocess.Popen(command, env=environment, cwd=folder, stdin=subprocess.DEVNULL,
                                               stdout=log, stderr=log, start_new_session=True, user=user, group=user,
                                               extra_groups=None if user is None else [])
            except OSError as error:
                raise SetupError(f"cannot start {self.name}: {error.strerror} ({command[0]})") from None
        write_private(self._record, json.dumps({"pid": self._child.pid, "command": command}))

    def process(self) -> psutil.Process | None:
        """The living process, or None. A record that cannot be read counts as none.

        Our own child is known without its command line, which the system shows a moment after the start only.
        """
        try:
            if self._child is not None and self._child.poll() is None:
                return psutil.Process(self._child.pid)
            record = json.loads(self._record.read_bytes())
            process = psutil.Process(record["pid"])
            return process if process.cmdline() == record["command"] else None
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            return None

    def wait_ready(self, is_ready: Callable[[], bool], patience_s: float) -> None:
        """Wait until `is_ready()`. Raises SetupError naming the log if the process ends first, or takes too long."""
        deadline = time.monotonic() + patience_s
        while not is_ready():
            if self.process() is None:
                raise SetupError(f"{self.name} stopped while it was starting; the reason is in {self.log}")
            if time.monotonic() > deadline:
                raise SetupError(f"{self.name} was not ready after {patience_s:.0f} s; what it did is in {self.log}")
            time.sleep(0.03)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process lives."""
        process = self.process()
        if process is not None:
            process.send_signal(number)              # psutil checks once more that the pid was not given away

    def wait_gone(self, patience_s: float) -> None:
        """Wait until the process has ended, and end it by SIGKILL after `patience_s`."""
        deadline = time.monotonic() + patience_s
        while self.process() is not None and time.monotonic() < deadline:
            time.sleep(0.03)
        self.signal(signal.SIGKILL)
        deadline = time.monotonic() + _KILL_PATIENCE_S
        while self.process() is not None:
            if time.monotonic() > deadline:
                raise SetupError(f"{self.name} does not end, even killed: look at the machine's disk and its logs")
            time.sleep(0.03)
        self._record.unlink(missing_ok=True)


def clean_environment(**variables: str) -> dict[str, str]:
    """The few variables that a server inherits, and `variables`.

    All others are left out: PREFECT_*, AWS_*, WEED_* and PG* of the person who starts the stack would change its servers.
    """
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "TZ", "LD_LIBRARY_PATH", MARK) if name in os.environ}
    return {**kept, "LC_ALL": "C.UTF-8", **variables}


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole and durably."""
    write_whole(path, text.encode(), durable=True, mode=0o600)
