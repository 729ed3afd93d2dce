"""One process serves a folder; who was killed is not in the way of who comes next."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fedround.errors import SetupError
from infra import serving
from infra.serving import served_alone

HOLDS = """
import os, sys, time
from infra.serving import served_alone
with served_alone(__import__('pathlib').Path(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(0.5)
        os._exit(0)
    print('held', flush=True)
    time.sleep(600)
"""


def test_two_processes_do_not_serve_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serving, "PATIENCE_S", 0.1)
    with served_alone(tmp_path), pytest.raises(SetupError, match="another process serves .*: stop that one first"), \
            served_alone(tmp_path):
        raise AssertionError


def test_fault_a_helper_of_a_killed_process_that_ends_after_it_stops_nobody(tmp_path: Path):
    """The helper has the same lock until it ends."""
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.kill()
        process.wait()
        with served_alone(tmp_path):
            pass
