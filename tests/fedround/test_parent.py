"""A child ends with its parent: the system sees to it, also when the parent is gone before the child has begun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from fedround.parent import as_parent, end_now

PATIENCE_S = 60.0      # never waited for, unless a test fails
CHILD = """
import time
from fedround.parent import end_with_parent
end_with_parent()
print("here", flush=True)
time.sleep(3600)
"""
PARENT = f"""
import os, subprocess, sys
from fedround.parent import as_parent, end_now
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], env={{**os.environ, **as_parent()}}, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_or_terminated_a_parent_takes_its_child_with_it(number: signal.Signals) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.send_signal(number)
    parent.wait()
    end = time.monotonic() + PATIENCE_S
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < end:
        time.sleep(0.02)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_child_whose_parent_is_gone_before_it_has_begun_ends_at_once() -> None:
    somebody_else = {**os.environ, "FEDROUND_PARENT": str(os.getppid())}
    assert subprocess.run([sys.executable, "-c", CHILD], env=somebody_else, check=False, stdout=subprocess.PIPE).stdout == b""


def test_who_was_started_by_hand_waits_for_nobody() -> None:
    alone = {name: value for name, value in os.environ.items() if name != "FEDROUND_PARENT"}
    child = subprocess.run([sys.executable, "-c", CHILD.replace("3600", "0")], env=alone, check=True, stdout=subprocess.PIPE)
    assert child.stdout == b"here\n"


def test_a_child_finds_the_libraries_of_an_interpreter_that_needs_to_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    assert as_parent() == {"FEDROUND_PARENT": str(os.getpid())}
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/python/lib")
    assert as_parent()["LD_LIBRARY_PATH"] == "/opt/python/lib"


def test_a_child_that_has_ended_is_still_to_be_waited_for() -> None:
    """Whoever ended it twice once freed its number, and the second time could end whoever had it then."""
    child = subprocess.Popen(["/bin/true"], start_new_session=True)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    for _ in range(2):
        end_now(child)
        assert os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    assert child.wait() == 0


def test_a_child_ends_with_all_that_it_has_started() -> None:
    """They may hold the line on which somebody waits for an answer."""
    child = subprocess.Popen(["/bin/sh", "-c", "sleep 3600 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout is not None
    other = psutil.Process(int(child.stdout.readline()))
    end_now(child)
    assert child.stdout.read() == b""
    child.wait()
    psutil.wait_procs([other], PATIENCE_S)
    assert not other.is_running() or other.status() == psutil.STATUS_ZOMBIE
    end_now(child)
