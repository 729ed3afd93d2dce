"""Our processes that run below a folder: recorded when they start, and stopped by id. No other process is ever stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import psutil

from fedround.files import write_whole

_FILE = "processes.json"
_PATIENCE_S = 15.0


def start_recorded(home: Path, name: str, command: list[str], log: Path, environment: dict[str, str]) -> int:
    """Start a process in a session of its own, with its output in `log`, and write it down; returns its id."""
    log.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL,
                                   env={**os.environ, **environment}, start_new_session=True)
    _write(home, {**_read(home), name: [process.pid, psutil.Process(process.pid).create_time()]})
    return process.pid


def recorded(home: Path) -> dict[str, int]:
    """The processes that still run, by name."""
    return {name: process.pid for name, process in _living(home).items()}


def stop_recorded(home: Path) -> list[str]:
    """Ask every process to end, then end it by force; returns their names. Processes that have ended are not touched."""
    living = _living(home)
    for process in living.values():
        process.send_signal(signal.SIGTERM)
    _, stubborn = psutil.wait_procs(living.values(), timeout=_PATIENCE_S)
    for process in stubborn:
        for child in [*process.children(recursive=True), process]:
            child.kill()
    psutil.wait_procs(stubborn, timeout=_PATIENCE_S)
    (home / _FILE).unlink(missing_ok=True)
    return sorted(living)


def _living(home: Path) -> dict[str, psutil.Process]:
    """Whether this process is still ours. Ids are used again, so the time of its creation is compared."""
    living = {}
    for name, (pid, created) in _read(home).items():
        try:
            process = psutil.Process(int(pid))
            if process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE:
                living[name] = process
        except psutil.NoSuchProcess:
            continue
    return living


def _read(home: Path) -> dict[str, list[float]]:
    try:
        return dict(json.loads((home / _FILE).read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def _write(home: Path, processes: dict[str, list[float]]) -> None:
    home.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_whole(home / _FILE, json.dumps(processes).encode(), durable=False)     # after a power cut none of them runs
