"""Adding to a file without reading it all gives the file that reading it all would have given. (The rest: test_ledger.py.)"""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Literal

import pytest

from fedround.errors import AuditError, SetupError
from fedround.privacy import chain
from fedround.values import Value


class Opening(chain.Line):
    format: Literal["test/1"] = "test/1"


class Event(Value):
    number: int
    text: str = ""


class Entry(chain.Line):
    event: Event


KIND = chain.Kind(name="test file", opening=Opening, entry=Entry, content="event", error=AuditError, if_lost="look for it")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    chain.create(KIND, tmp_path / "file.jsonl", {"format": "test/1"})
    return tmp_path / "file.jsonl"


def numbers(path: Path) -> list[int]:
    return [entry.event.number for entry in chain.read(KIND, path).entries]


def event(number: int, text: str = "") -> dict:
    return {"number": number, "text": text}


def test_a_file_that_is_added_to_is_locked_against_every_other_writer(path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two rounds that charge at once, each on what it has read, would both be within the budget and not together."""
    refused = []

    def try_to_lock(*_: object) -> None:
        with path.open("rb") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                refused.append(path)

    with chain.appending(KIND, path):
        try_to_lock()
    monkeypatch.setattr(chain, "_write", try_to_lock)
    chain.append(KIND, path, event(1))
    assert len(refused) == 2
    try_to_lock()
    assert len(refused) == 2, "who has finished leaves no lock"


def test_adding_at_the_end_and_adding_to_what_was_read_write_the_same_bytes(path: Path, tmp_path: Path):
    other = tmp_path / "other.jsonl"
    other.write_bytes(path.read_bytes())
    chain.append(KIND, path, *(event(number) for number in range(3)))
    for number in range(3):
        with chain.appending(KIND, other) as file:
            file.append(event(number))
    assert path.read_bytes() == other.read_bytes()


def test_only_the_end_of_a_long_file_is_read_and_it_stays_whole(path: Path):
    for number in range(40):
        chain.append(KIND, path, event(number, "x" * 5000))
    assert path.stat().st_size > 3 * chain._LAST_LINES_BYTES
    assert numbers(path) == list(range(40))


@pytest.mark.parametrize("long", [False, True])
def test_wherever_a_crash_cuts_the_last_line_adding_goes_on(path: Path, long: bool):
    for number in range(30 if long else 2):
        chain.append(KIND, path, event(number, "x" * 5000 if long else ""))
    before = numbers(path)
    original = path.read_bytes()
    start = original.rindex(b"\n", 0, -1) + 1
    for cut in (start, start + 1, start + 9, start + 30, len(original) - 2, len(original) - 1, len(original)):
        path.write_bytes(original[:cut])
        chain.append(KIND, path, event(99))
        assert numbers(path) == (before if cut >= len(original) - 1 else before[:-1]) + [99]


def test_nothing_is_added_after_a_last_line_that_was_altered(path: Path):
    chain.append(KIND, path, event(1))
    altered = path.read_bytes().replace(b'"number":1', b'"number":2')
    path.write_bytes(altered)
    with pytest.raises(AuditError, match="last line was altered"):
        chain.append(KIND, path, event(2))
    assert path.read_bytes() == altered


def test_a_file_that_is_gone_is_not_begun_anew(path: Path):
    path.unlink()
    with pytest.raises(SetupError, match="look for it"):
        chain.append(KIND, path, event(1))
    assert not path.exists()
