"""Append-only files that detect changes: one JSON object per line, each naming the one before.

Canonical JSON (RFC 8785), read back before it is written. The first line says what the file is, every other has one field of
content::

    {"format":"…","previous":"000…0","sha256":"4b1…"}
    {"charge":{…},"previous":"4b1…","sha256":"97c…"}

`sha256` covers the rest of its line and `previous` is the line before, so no byte of the file and no line inside it can
change unseen. It says that the file is as we wrote it, not that nobody rewrote all of it, or cut its end off.

A line counts once it is whole. Appending returns only after the line, its newline and an fsync. So a crash can leave one of
two things at the end of the file. Neither loses an acknowledged line:

* a whole line without its newline: counted (its writer may never have heard of it);
* the beginning of a line: not counted, because no append returned for it; the next append removes it.

Anything else that is not a valid line is an error of the file's kind, and a person must look at it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Generic, Literal, TypeVar

from fedround.errors import ContractError, FedroundError, PrivacyError, SetupError
from fedround.files import create_once
from fedround.values import Digest, Value, as_read, parse

_NO_LINE = "0" * 64
_LAST_LINES_BYTES = 1 << 16
_LINES_REMEMBERED = 4096     # some megabytes


class Line(Value):
    """What every line ends with."""

    previous: Digest
    sha256: Digest


O = TypeVar("O", bound=Line)  # noqa: E741 - the opening line
E = TypeVar("E", bound=Line)
L = TypeVar("L", bound=Line)


@dataclass(frozen=True)
class Kind(Generic[O, E]):
    """What the lines of one kind of file are, and how its errors speak."""

    name: str
    opening: type[O]
    entry: type[E]
    content: str
    """The name of an entry's field of content; in the alphabet before "previous", so that every entry begins with it."""
    error: type[FedroundError]
    if_lost: str
    """What to do when there is no such file."""


@dataclass(frozen=True)
class Chain(Generic[O, E]):
    """What a file said when it was read."""

    opening: O
    entries: tuple[E, ...]
    head: str
    """The digest of the last line; it stands for the whole history."""


def create(kind: Kind[O, E], path: Path, opening: dict[str, Any]) -> None:
    """Begin a file, mode 0600, with this content in its first line. Raises the kind's error if the file exists."""
    line, _ = _line(kind.opening, {**opening, "previous": _NO_LINE}, f"{kind.name} {path}")
    if not create_once(path, line + b"\n"):
        raise kind.error(f"{path} exists already and is left as it is: a {kind.name} that is replaced forgets its history")


def read(kind: Kind[O, E], path: Path) -> Chain[O, E]:
    """Read and verify a whole file. Raises SetupError if there is none, the kind's error if it is not as we wrote it."""
    with _opened(kind, path, "rb") as file:
        return _parse(kind, file.read(), path)[0]


class Appender(Generic[O, E]):
    """A whole file, verified and locked against other writers."""

    def __init__(self, kind: Kind[O, E], path: Path, file: BinaryIO):
        self._kind, self._path, self._file = kind, path, file
        self.chain, self._whole = _parse(kind, file.read(), path)

    def append(self, content: dict[str, Any]) -> str:
        """Add one entry; returns the new head. Raises PrivacyError if it could not be made durable."""
        line, head = _line(self._kind.entry, {self._kind.content: content, "previous": self.chain.head}, f"{self._path}")
        _write(self._file, self._whole, line + b"\n", self._path)
        return head

    def settle(self) -> None:
        """Make durable what is there: its writer may have been killed before its fsync."""
        _write(self._file, self._whole, b"", self._path)


@contextmanager
def appending(kind: Kind[O, E], path: Path) -> Iterator[Appender[O, E]]:
    """Open a file for one more entry that depends on all earlier ones. Raises as `read` does."""
    with _opened(kind, path, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)            # released by closing the file, also when the process is killed
        yield Appender(kind, path, file)


def append(kind: Kind[O, E], path: Path, *contents: dict[str, Any]) -> None:
    """Add entries that do not depend on earlier ones: reads only the end of the file, however long it is.

    Raises SetupError if there is no file, the kind's error if its last line is not as we wrote it, PrivacyError if the
    entries could not be made durable.
    """
    with _opened(kind, path, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        start = max(0, file.seek(0, os.SEEK_END) - _LAST_LINES_BYTES)
        file.seek(start)
        data = file.read()
        if start > 0:
            cut, _, data = data.partition(b"\n")       # the end of a line that begins earlier
            start += len(cut) + 1
        lines = _whole_lines(kind, data, path)
        first = start == 0 and len(lines) == 1
        head = _read_line(kind.opening if first else kind.entry, kind, lines[-1], None, f"{path} last line").sha256
        new = b""
        for content in contents:
            line, head = _line(kind.entry, {kind.content: content, "previous": head}, f"{path}")
            new += line + b"\n"
        _write(file, b"".join(line + b"\n" for line in lines), new, path, start)


def _line(line_type: type[Line], content: dict[str, Any], where: str) -> tuple[bytes, str]:
    """A line that can be read: raises ContractError, and nothing was written, for content that could not be."""
    new = parse(line_type, {**content, "sha256": _NO_LINE}, where)
    digest = _digest(new)
    line = as_read(new.model_copy(update={"sha256": digest}))
    if as_read(parse(line_type, line, where)) != line:
        raise ContractError(f"{where}: read again, the line would say something else")
    return line, digest


def _digest(line: Line) -> str:
    """The digest of the line's own bytes, not of the value as this version writes it: this version may add keys that the
    line does not have.
    """
    return hashlib.sha256(as_read(line, without=frozenset({"sha256"}))).hexdigest()


@contextmanager
def _opened(kind: Kind[O, E], path: Path, mode: Literal["rb", "r+b"]) -> Iterator[BinaryIO]:
    try:
        file = path.open(mode)
    except FileNotFoundError:
        raise SetupError(f"no {kind.name} at {path}: {kind.if_lost}") from None
    with file:
        yield file


def _write(file: BinaryIO, whole: bytes, new: bytes, path: Path, start: int = 0) -> None:
    """Write `new` after the `whole` lines that begin at `start`. It replaces the partial line that a crash left."""
    try:
        kept = min(file.seek(0, os.SEEK_END), start + len(whole))
        file.truncate(kept)
        file.seek(kept)
        file.write(whole[kept - start:] + new)
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        raise PrivacyError(f"{path}: the line could not be written ({error.strerror}), so no work may begin; free space "
                           "or repair the disk, then try again") from None


def _parse(kind: Kind[O, E], data: bytes, path: Path) -> tuple[Chain[O, E], bytes]:
    """The chain in `data`, and the bytes of its whole lines, each with its newline."""
    lines = _whole_lines(kind, data, path)
    opening = _read_line(kind.opening, kind, lines[0], _NO_LINE, f"{path} line 1")
    entries, head = [], opening.sha256
    for number, line in enumerate(lines[1:], start=2):
        entry = _read_line(kind.entry, kind, line, head, f"{path} line {number}")
        entries.append(entry)
        head = entry.sha256
    return Chain(opening, tuple(entries), head), b"".join(line + b"\n" for line in lines)


def _whole_lines(kind: Kind[O, E], data: bytes, path: Path) -> list[bytes]:
    *lines, tail = data.split(b"\n")
    if tail and not _torn(kind, tail):
        lines.append(tail)
    if not lines:
        raise kind.error(f"{path} is not a fedround {kind.name}: it has no first line")
    return lines


def _torn(kind: Kind[O, E], tail: bytes) -> bool:
    """Whether these bytes, which no newline ends, are only the beginning of an entry's line."""
    first = f'{{"{kind.content}":{{'.encode()
    if not (tail.startswith(first) or first.startswith(tail)):
        return False
    try:
        json.JSONDecoder().raw_decode(tail.decode("ascii"))
    except json.JSONDecodeError:
        return True
    except (ValueError, RecursionError):        # other letters, thousands of digits or brackets: no line of ours begins so
        return False
    return False


def _read_line(line_type: type[L], kind: Kind[O, E], line: bytes, previous: str | None, where: str) -> L:
    entry: L
    try:
        entry, exact = _understood(line_type, line)
    except ContractError:
        raise kind.error(f"{where} is not a line of a fedround {kind.name}, or was altered; restore the file from your "
                         "backup") from None
    if not exact:
        raise kind.error(f"{where} was altered: its digest does not match; restore the file from your backup")
    if previous is not None and entry.previous != previous:
        raise kind.error(f"{where} does not follow the line before it: lines are missing or were moved; restore the "
                         "file from your backup")
    return entry


@lru_cache(maxsize=_LINES_REMEMBERED)
def _understood(line_type: type[L], line: bytes) -> tuple[L, bool]:
    """What a line says, and whether its digest is that of its bytes. The same bytes always say the same: a ledger is read
    several times in every round, and only its last line is new.
    """
    entry = parse(line_type, line, "a line")
    return entry, as_read(entry) == line and _digest(entry) == entry.sha256
