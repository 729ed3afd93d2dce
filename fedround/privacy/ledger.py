"""A site's privacy ledger: what every release from one data set cost, on the site's own disk.

One JSON object per line, canonical (RFC 8785)::

    {"dataset":"loans-2026","format":"fedround-ledger/1","previous":"000…0","sha256":"4b1…"}
    {"charge":{…},"previous":"4b1…","sha256":"97c…"}

`sha256` covers the rest of its line and `previous` is the line before, so no byte of the file and no line inside it can
change unseen. It says that the file is as we wrote it, not that nobody rewrote all of it: the file is the site's own.
It stores mechanisms, not epsilons: a better accountant later reads the same facts.

A line counts once it is whole. `charge` returns only after the line, its newline and an fsync, and work begins only
after `charge` has returned. So a crash can leave two things at the end of the file, and neither loses a charge:

* a whole line without its newline: counted (its caller may never have heard of it; too much is safe, too little not);
* the beginning of a line: not counted, because no `charge` returned for it; the next `charge` removes it.

Anything else that is not a line of ours is a LedgerError, and a human looks.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, TypeVar

import rfc8785
from pydantic import Field, StringConstraints

from fedround.errors import BudgetError, ContractError, LedgerError, PrivacyError, SetupError
from fedround.privacy.accounting import epsilon
from fedround.privacy.files import create_once
from fedround.types import Digest, Mechanism, Name, Purpose, Value, parse

_NO_LINE = "0" * 64


class Charge(Value):
    """What one release costs: the mechanisms, and the plan that asked for it."""

    federation: Name
    run: Name
    round: Annotated[int, Field(ge=0, le=99_999)]
    purpose: Purpose
    plan: Digest
    mechanisms: Annotated[tuple[Mechanism, ...], Field(min_length=1)]
    delta_dp: Annotated[float, Field(gt=0, lt=0.1)]
    """What the plan promises its epsilon at; the total over the data set is compared with the budget at this value."""
    utc: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$")]


class _Opening(Value):
    """The first line."""

    format: Literal["fedround-ledger/1"] = "fedround-ledger/1"
    dataset: Name
    previous: Digest
    sha256: Digest


class _Entry(Value):
    """Every other line."""

    charge: Charge
    previous: Digest
    sha256: Digest


E = TypeVar("E", _Opening, _Entry)


@dataclass(frozen=True)
class Ledger:
    """What the file at `path` said when it was read."""

    path: Path
    dataset: str
    charges: tuple[Charge, ...]
    head: str
    """The digest of the last line; it stands for the whole history."""


def create(path: Path, dataset: str) -> Ledger:
    """Open a ledger for the data set that the site calls `dataset`. Raises LedgerError if the file exists."""
    line, _ = _line({"format": "fedround-ledger/1", "dataset": dataset, "previous": _NO_LINE})
    parse(_Opening, line, f"ledger {path}")
    if not create_once(path, line + b"\n"):
        raise LedgerError(f"{path} exists already and is left as it is: a replaced ledger forgets what was spent")
    return read(path)


def read(path: Path) -> Ledger:
    """Read and verify a ledger. Raises SetupError if there is none, LedgerError if it is not as we wrote it."""
    with _opened(path, "rb") as file:
        return _parse(file.read(), path)[0]


def charge(ledger: Ledger, charge: Charge, max_epsilon: float) -> Ledger:
    """Record `charge` before the work that it pays for; durable when this returns.

    The budget is the data set's: every charge in the ledger counts, of every run and federation. The same charge for
    the same plan (its time aside) is recorded once: a retry costs nothing. The same plan with other mechanisms is
    another release and is charged. Another process may have charged since `ledger` was read; that counts too.
    Raises BudgetError, and records nothing, if the total would exceed `max_epsilon` at the charge's delta_dp;
    LedgerError if the file is not as we wrote it or does not continue `ledger`; PrivacyError if it cannot be written.
    """
    if not max_epsilon >= 0:            # NaN too: nothing is greater than NaN, so it would allow everything
        raise ContractError(f"a budget is a number of at least 0, got max_epsilon {max_epsilon}")
    with _opened(ledger.path, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)            # released by closing the file, also when the process is killed
        current, whole = _parse(file.read(), ledger.path)
        if current.charges[:len(ledger.charges)] != ledger.charges or current.dataset != ledger.dataset:
            raise LedgerError(f"{ledger.path} does not continue what was read from it before: restore the newest copy")
        if any(charge.model_copy(update={"utc": earlier.utc}) == earlier for earlier in current.charges):
            _write(file, whole, b"", ledger.path)   # its writer may have been killed before its fsync
            return current
        _check_budget(current, charge, max_epsilon)
        line, head = _line({"charge": charge.model_dump(mode="json"), "previous": current.head})
        _write(file, whole, line + b"\n", ledger.path)
    return _extended(current, charge, head)


def spent(ledger: Ledger, delta_dp: float, run: str | None = None) -> float:
    """Epsilon at `delta_dp` of all charges, or of those of one run; rounded up, infinite if anything left unnoised."""
    return epsilon([mechanism for charge in ledger.charges if run is None or charge.run == run
                    for mechanism in charge.mechanisms], delta_dp)


def _check_budget(ledger: Ledger, charge: Charge, max_epsilon: float) -> None:
    after = spent(_extended(ledger, charge, ledger.head), charge.delta_dp)
    if after > max_epsilon:
        raise BudgetError(
            f"data set '{ledger.dataset}': round {charge.round} of run '{charge.run}' would bring epsilon from "
            f"{spent(ledger, charge.delta_dp):.6f} to {after:.6f} at delta_dp {charge.delta_dp}, and the site's policy "
            f"allows {max_epsilon:g}; nothing was charged")


def _extended(ledger: Ledger, charge: Charge, head: str) -> Ledger:
    return Ledger(ledger.path, ledger.dataset, (*ledger.charges, charge), head)


# -- bytes -------------------------------------------------------------------------------------------------------------


def _line(content: dict[str, Any]) -> tuple[bytes, str]:
    digest = hashlib.sha256(rfc8785.dumps(content)).hexdigest()
    return rfc8785.dumps(content | {"sha256": digest}), digest


@contextmanager
def _opened(path: Path, mode: Literal["rb", "r+b"]) -> Iterator[BinaryIO]:
    try:
        file = path.open(mode)
    except FileNotFoundError:
        raise SetupError(f"no privacy ledger at {path}: make one with 'fedround site init', or restore it from your "
                         "backup; never start an empty one for rows that were used before") from None
    with file:
        yield file


def _write(file: BinaryIO, whole: bytes, line: bytes, path: Path) -> None:
    """Append `line` after the `whole` lines, in place of the beginning of a line that a crash may have left."""
    try:
        kept = min(file.seek(0, os.SEEK_END), len(whole))
        file.truncate(kept)
        file.seek(kept)
        file.write(whole[kept:] + line)
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        raise PrivacyError(f"{path}: the charge could not be written ({error.strerror}), so no work may begin; free "
                           "space or repair the disk, then try again") from None


def _parse(data: bytes, path: Path) -> tuple[Ledger, bytes]:
    """The ledger in `data`, and the bytes of its whole lines, each with its newline."""
    *lines, tail = data.split(b"\n")
    if tail and not _torn(tail):
        lines.append(tail)
    if not lines:
        raise LedgerError(f"{path} is not a fedround privacy ledger: it has no first line")
    opening = _read_line(_Opening, lines[0], _NO_LINE, f"{path} line 1")
    charges, head = [], opening.sha256
    for number, line in enumerate(lines[1:], start=2):
        entry = _read_line(_Entry, line, head, f"{path} line {number}")
        charges.append(entry.charge)
        head = entry.sha256
    return Ledger(path, opening.dataset, tuple(charges), head), b"".join(line + b"\n" for line in lines)


def _torn(tail: bytes) -> bool:
    """Whether these bytes, which no newline ends, are only the beginning of a charge's line."""
    first = b'{"charge":{'
    if not (tail.startswith(first) or first.startswith(tail)):
        return False
    try:
        json.JSONDecoder().raw_decode(tail.decode("ascii"))
    except UnicodeDecodeError:
        return False
    except ValueError:
        return True
    return False


def _read_line(kind: type[E], line: bytes, previous: str, where: str) -> E:
    try:
        entry = parse(kind, line, where)
        expected, _ = _line(entry.model_dump(mode="json", exclude={"sha256"}))
    except (ContractError, rfc8785.CanonicalizationError):
        raise LedgerError(f"{where} is not a line of a fedround ledger, or was altered; restore the file from your "
                          "backup") from None
    if expected != line:
        raise LedgerError(f"{where} was altered: its digest does not match; restore the file from your backup")
    if entry.previous != previous:
        raise LedgerError(f"{where} does not follow the line before it: lines are missing or were moved; restore the "
                          "file from your backup")
    return entry
