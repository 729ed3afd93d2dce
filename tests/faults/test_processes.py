"""What a disturbed campaign is compared with: the tool itself. `python -m tests.faults --kind processes` disturbs a live
one."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path

from infra.history import read_commit
from tests.faults.processes import full_disk, others_than_undisturbed
from tests.small_federation import SmallFederation

WRITES = """
import sys, time
for line in sys.stdin:
    try:
        with open(line.strip(), "w") as file:
            file.write("x" * 10_000)
        print("written", flush=True)
    except OSError as error:
        print(type(error).__name__, error.errno, flush=True)
"""


def test_updates_are_those_of_undisturbed_sites_and_one_that_is_not_is_named(federation: SmallFederation, tmp_path: Path):
    before = tmp_path / "before"
    for name in federation.names:
        shutil.copytree(federation.root / name, before / name)
    for _ in range(2):
        federation.round()
    store, key = federation.coordinator.store, federation.coordinator.identity.key
    commits = [read_commit(store, "spring", number, key).commit for number in (1, 2)]
    assert list(others_than_undisturbed(store, key, commits, before)) == []
    first, *others = commits[1].updates
    forged = commits[1].model_copy(update={"updates": (first.model_copy(update={"payload": "0" * 64}), *others)})
    assert list(others_than_undisturbed(store, key, [forged], before)) == [
        f"round 2: '{first.site}' sent other bytes than an undisturbed site"]


def test_a_disk_is_full_for_a_while(tmp_path: Path):
    process = subprocess.Popen([sys.executable, "-c", WRITES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        def asked(name: str) -> str:
            process.stdin.write(f"{tmp_path / name}\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        assert asked("before") == "written"
        with full_disk(process.pid):
            assert asked("while") == f"OSError {errno.EFBIG}"
        assert asked("after") == "written"
    finally:
        process.kill()
        process.wait()
