"""Killed before any change that it makes to a disk, and begun again, every member ends as if nobody had killed it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import crash


def tried(*arguments: str) -> str:
    """What `python -m tests.faults` prints: in a process of its own, which forks, and has one thread."""
    done = subprocess.run([sys.executable, "-m", "tests.faults", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout


def test_some_scenes_by_chance():
    assert "killed: " in tried("--scenes", "1", "--sample", "4")


def test_every_scene():
    assert tried("--sample", "8").count("killed: ") >= 12


# -- the tool itself ---------------------------------------------------------------------------------------------------


def forgets_half(root: Path) -> None:
    """A writer that goes wrong if it is killed between its two files."""
    if not (root / "first").exists():
        (root / "first").write_text("1")
        (root / "second").write_text("2")


def test_it_finds_a_writer_that_forgets_half(tmp_path: Path):
    places = crash.places(tmp_path, lambda: forgets_half(tmp_path))
    assert [str(place) for place in places] == ["open first", "open second"]
    outcomes = []
    for number in range(len(places)):
        for path in tmp_path.iterdir():
            path.unlink()
        assert crash.killed_at(number, tmp_path, lambda: forgets_half(tmp_path))
        assert crash.done(lambda: forgets_half(tmp_path))
        outcomes.append(sorted(path.name for path in tmp_path.iterdir()))
    assert outcomes == [["first", "second"], ["first"]]


def appends(root: Path) -> None:
    import os

    with (root / "log").open("a") as file:
        file.write("0123456789")
        file.flush()
        os.fsync(file.fileno())


def test_a_power_cut_leaves_half_of_what_was_not_synced(tmp_path: Path):
    (tmp_path / "log").write_text("before")
    torn = [place.torn for place in crash.places(tmp_path, lambda: appends(tmp_path))].index(True)
    (tmp_path / "log").write_text("before")
    assert crash.killed_at(torn, tmp_path, lambda: appends(tmp_path))
    assert (tmp_path / "log").read_text() == "before01234"


def test_work_that_fails_by_itself_is_no_kill(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    with pytest.raises(AssertionError, match="although nobody disturbed it"):
        crash.places(tmp_path, lambda: (tmp_path / "no" / "folder").write_text("x"))
    assert "FileNotFoundError" in capfd.readouterr().err
