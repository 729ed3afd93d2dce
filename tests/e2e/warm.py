"""`fedround …` in a fraction of the seconds: a program of that name which a warm parent runs for whoever types it.

    with fedround_on(folder, environment): ...      # put `folder` first on the PATH

Most of what a command costs is to import libraries. The parent imports them once, and forks a process for every command:
with the arguments, environment, folder and files of the shell that typed it, and from there on as `fedround_cli.main`
itself. What was typed waits for its end, passes signals on, and ends as it does. A process that serves is then a site of
`site_workers.host` rather than one of its own, with children that judge its rows and count its budget: `cold` says which
commands are started as ever. Linux.

    python -m tests.e2e.warm SOCKET                  # the parent
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

LIBRARIES = ("boto3", "dp_accounting.pld.privacy_loss_distribution", "dvc.repo", "great_expectations", "pandas",
             "pyarrow.parquet", "sklearn.metrics", "torch.func", "torch.nn")
OURS = ("fedround", "infra", "validation", "site_workers", "tasks", "flows", "fedround_cli")
TYPED = '''#!{python} -IS
import array, json, os, signal, socket, sys

if " ".join(sys.argv[1:]).startswith({cold!r}):
    os.execv({real!r}, [{real!r}, *sys.argv[1:]])
parent = socket.socket(socket.AF_UNIX)
parent.connect({path!r})
asked = json.dumps({{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}).encode()
parent.sendmsg([len(asked).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
parent.sendall(asked)
answer = parent.makefile()
process = int(answer.readline())
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: os.kill(process, number))
code = int(answer.readline())
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
'''


@contextmanager
def fedround_on(folder: Path, environment: Mapping[str, str], cold: tuple[str, ...] = ()) -> Iterator[None]:
    """While this lasts, `folder` holds a program `fedround` that costs little to start. environment: the parent's own.
    cold: how the commands begin that are started as ever.
    """
    path = folder / ".parent"
    program = folder / "fedround"
    real = Path(sys.executable).with_name("fedround")
    program.write_text(TYPED.format(python=sys.executable, path=str(path), real=str(real), cold=cold))
    program.chmod(0o755)
    parent = subprocess.Popen([sys.executable, "-m", "tests.e2e.warm", str(path)], env=environment, cwd=folder,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        yield
    finally:
        parent.kill()
        parent.wait()


def preload() -> None:
    """Import everything, and freeze it: a garbage collection in a child would copy every page. Recipes run in the commands'
    own processes, which have torch: tests of processes that are started anew have them apart.
    """
    from site_workers.apart.opening import run_here

    run_here()
    # No threads before a fork.
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
    follow_the_environment()
    for module in LIBRARIES:
        importlib.import_module(module)
    for package in OURS:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    gc.collect()
    gc.freeze()
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise RuntimeError(f"{threads} threads in the parent: forking now could copy a held lock")


def follow_the_environment() -> None:
    """`use_api` sets what Prefect reads when it is imported. Here it is imported already, so it must read again."""
    from infra import prefect_client

    set_up = prefect_client.use_api

    def use_api(api_url: str, home: Path) -> None:
        set_up(api_url, home)
        importlib.import_module("prefect.context").refresh_global_settings_context()

    prefect_client.use_api = use_api


def typed(listener: socket.socket) -> list[str]:
    """Serve whoever types; returns only in a child that is to run a command: its arguments."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)       # nobody waits for the nurses
    while True:
        asking, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return nurse(asking)
        asking.close()


def nurse(asking: socket.socket) -> list[str]:
    """Fork the command and tell whoever typed it its number and its end; returns only in the command's own process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, files, _, _ = socket.recv_fds(asking, 8, 3)
    asked = json.loads(asking.makefile("rb").read(int.from_bytes(size, "big")))
    own = os.getpid()
    child = os.fork()
    if child != 0:
        for file in files:
            os.close(file)
        asking.sendall(f"{child}\n".encode())
        ended = os.pidfd_open(child)
        if ended not in select.select([ended, asking], [], [])[0]:      # whoever typed it is gone
            os.kill(child, signal.SIGTERM)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        try:
            asking.sendall(f"{code}\n".encode())
        finally:
            os._exit(0)
    end_with(own)
    asking.close()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    return list(asked["arguments"])


def end_with(parent: int) -> None:
    """Ask Linux to end this process when its parent ends, however that ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    end_with(os.getppid())
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen()
        preload()
        print("ready", flush=True)
        sys.argv = ["fedround", *typed(listener)]

    from fedround_cli.main import app

    app()
