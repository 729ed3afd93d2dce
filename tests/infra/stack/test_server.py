"""A server is known by its record, stopped by any process, and never mistaken for somebody else's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fedround.errors import SetupError
from infra.stack.server import Server, clean_environment, write_private

PATIENCE_S = 900.0      # never waited for, unless a test fails
SLEEP = [sys.executable, "-c", "import time; time.sleep(3600)"]
STUBBORN = [sys.executable, "-c",
            "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(1, flush=True); time.sleep(3600)"]
STOP = """
import signal, sys
from pathlib import Path
from infra.stack.server import Server
other = Server(Path(sys.argv[1]), "one")
other.signal(signal.SIGINT)
other.wait_gone(10)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    one = Server(tmp_path, "one")
    yield one
    one.wait_gone(0)


def test_another_process_finds_and_stops_it(server: Server, tmp_path: Path) -> None:
    server.spawn(SLEEP, clean_environment(), tmp_path)
    process = server.process()
    assert process is not None
    subprocess.run([sys.executable, "-c", STOP, str(tmp_path)], check=True)
    assert server.process() is None
    assert not psutil.pid_exists(process.pid)


def test_a_pid_that_is_somebody_elses_by_now_is_left_alone(server: Server, tmp_path: Path) -> None:
    bystander = subprocess.Popen(SLEEP)
    (tmp_path / "run").mkdir()
    record = {"pid": bystander.pid, "command": ["postgres", "-D", str(tmp_path)]}
    (tmp_path / "run" / "one.json").write_text(json.dumps(record))
    assert server.process() is None
    server.signal(signal.SIGKILL)
    server.wait_gone(0)
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


@pytest.mark.parametrize("record", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "command": []}',
                                    '{"pid": -5, "command": []}'])
def test_a_broken_record_is_no_server(server: Server, tmp_path: Path, record: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "one.json").write_text(record)
    assert server.process() is None


def test_one_that_ignores_the_signal_is_killed(server: Server, tmp_path: Path) -> None:
    server.spawn(STUBBORN, clean_environment(), tmp_path)
    server.wait_ready(lambda: server.log.read_bytes() != b"", PATIENCE_S)
    server.signal(signal.SIGINT)
    server.wait_gone(0.3)
    assert server.process() is None


def test_one_that_ends_while_it_starts_is_reported_with_its_log(server: Server, tmp_path: Path) -> None:
    server.spawn([sys.executable, "-c", "raise SystemExit('no such module')"], clean_environment(), tmp_path)
    with pytest.raises(SetupError, match=r"one stopped while it was starting; .*one\.log"):
        server.wait_ready(lambda: False, PATIENCE_S)
    assert "no such module" in server.log.read_text()


def test_one_that_has_just_begun_has_no_command_line_yet_and_lives(server: Server, tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    server.spawn(SLEEP, clean_environment(), tmp_path)
    monkeypatch.setattr(psutil.Process, "cmdline", lambda _: [])
    assert server.process() is not None
    server.signal(signal.SIGKILL)
    server.wait_gone(10.0)
    assert server.process() is None


def test_one_that_takes_too_long_is_reported(server: Server, tmp_path: Path) -> None:
    server.spawn(SLEEP, clean_environment(), tmp_path)
    with pytest.raises(SetupError, match="not ready after 0 s"):
        server.wait_ready(lambda: False, 0.1)


def test_a_program_that_is_missing_is_a_setup_error(server: Server, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot start one"):
        server.spawn([str(tmp_path / "missing")], clean_environment(), tmp_path)


def test_the_environment_of_whoever_starts_it_stays_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "AWS_ACCESS_KEY_ID", "WEED_JWT_SIGNING_KEY", "PGHOST", "HTTP_PROXY", "HOME"):
        monkeypatch.setenv(name, "from the outside")
    assert "from the outside" not in clean_environment(PREFECT_HOME="x").values()


def test_private_files_are_private_and_replaced_whole(tmp_path: Path) -> None:
    write_private(tmp_path / "secret", "first")
    write_private(tmp_path / "secret", "second")
    assert (tmp_path / "secret").read_text() == "second"
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["secret"]
