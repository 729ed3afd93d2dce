"""Judges a site's rows by a contract, and separates the results by who may see them.

* **Form**: which columns there are, and of which types, as the files' own schema says. It depends on no record, and is the
  only thing for which a site refuses. (A CSV file says no types. There a column is numbers where most of its values are.)
* **Rows**: what each row meets by itself. A row that fails does not count, but keeps its place. Only the site's operator
  sees how many rows fail.
* **Tables**: sums, extremes, shares, duplicates. One record can change any of them, so only the site's operator sees them.
  The site's answer does not depend on them.

A check that only warns refuses nothing and leaves no row out. If it is about form, the site's answer may name it. If it is
about rows or tables, only the operator sees that it fails.

So no answer and no refusal tells whether a record is there, whatever a contract asks. Great Expectations judges, in a process
of its own (`judge_in_subprocess`) that gives its memory back.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from fedround.errors import ContractError, FedroundError, SetupError
from fedround.learning.encoding import by_types
from fedround.parent import as_parent, end_with_parent
from fedround.values import CheckId
from validation import rows as gate
from validation.contract import ROW_BY_ROW, TYPES, Check, Contract, columns_of, is_form, load_contract

if TYPE_CHECKING:
    import pandas as pd

Bools = npt.NDArray[np.bool_]
Kind = Literal["form", "rows", "tables", "form_warnings", "warnings"]
_ERRORS: dict[str, type[FedroundError]] = {"SetupError": SetupError, "ContractError": ContractError}


@dataclass(frozen=True)
class Judged:
    """The verdict on files of rows. Every file is judged by itself; what fails in one fails in all together."""

    form: tuple[CheckId, ...]
    """Failed checks that do not depend on the records. Only these, and `form_warnings`, may be told."""
    rows: tuple[CheckId, ...]
    """Checks that some row fails."""
    tables: tuple[CheckId, ...]
    """Checks that the rows fail together, as a table."""
    form_warnings: tuple[CheckId, ...]
    """Failed checks that only warn, and do not depend on the records."""
    warnings: tuple[CheckId, ...]
    """Failed checks that only warn, about rows or tables."""
    left_out: tuple[int, ...]
    """The places of rows that fail one of `rows`, counted through the files from 0."""
    total: int
    """How many rows there are."""
    files: tuple[Judged, ...] = field(default=(), compare=False)
    """The verdict on each file, in order; empty for what is one."""

    def by_file(self, paths: Sequence[Path], kind: Kind) -> str:
        """Which files fail which checks, in words for the site's operator."""
        return "; ".join(f"{path} fails {', '.join(getattr(one, kind))}" for path, one in zip(paths, self.files, strict=True)
                         if getattr(one, kind))

    def failed(self, contract: Contract) -> tuple[CheckId, ...]:
        """All, in the contract's order; for the site's operator."""
        found = {*self.form, *self.rows, *self.tables, *self.form_warnings, *self.warnings}
        return tuple(check.id for check in contract.checks if check.id in found)


_IDS: tuple[Kind, ...] = get_args(Kind)


def judge(paths: Sequence[Path], contract: Contract) -> Judged:
    """Judge the rows of each of these files by itself: joined, a column that one of them lacks would be there.

    Raises what `rows.read_rows` raises.
    """
    found, ours = [], contract.model_copy(update={"checks": tuple(map(in_our_types, contract.checks))})
    for path in paths:
        typed = gate.is_typed(path)
        frame = gate.read_typed(path, dates=typed, exactly=True)
        with gate.silence():
            found.append(_judged(frame, [gate.read_form(path, frame)], ours, typed))
    return _together(found)


def _together(files: Sequence[Judged]) -> Judged:
    before = np.cumsum([0, *(file.total for file in files)]).tolist()
    failed = {name: tuple(dict.fromkeys(one for file in files for one in getattr(file, name))) for name in _IDS}
    left_out = tuple(start + place for file, start in zip(files, before, strict=False) for place in file.left_out)
    return Judged(**failed, left_out=left_out, total=before[-1], files=tuple(files))


def judge_frame(frame: pd.DataFrame, contract: Contract) -> Judged:
    """The same of rows in memory, whose form is the frame's own."""
    with gate.silence():
        return _judged(frame.reset_index(drop=True), [frame.head(0)], contract, typed=True)


def in_our_types(check: Check) -> Check:
    """The check with the one width that numbers have here (`validation.kinds`)."""
    if check.type not in TYPES:
        return check
    kwargs = {key: [_width(one) for one in value] if key == "type_list" and isinstance(value, list) else
              _width(value) if key == "type_" else value for key, value in check.kwargs.items()}
    return check.model_copy(update={"kwargs": kwargs})


def _width(name: JsonValue) -> JsonValue:
    if re.fullmatch(r"u?int(8|16|32|64)", str(name)):
        return "int64"
    return "float64" if re.fullmatch(r"float(16|32)", str(name)) else name


def _judged(frame: pd.DataFrame, forms: Sequence[pd.DataFrame], contract: Contract, typed: bool) -> Judged:
    found: dict[str, list[CheckId]] = {name: [] for name in _IDS}
    whole, left_out_N = _Whole(frame, forms, typed), np.zeros(len(frame), np.bool_)
    for check in contract.checks:
        if (fault := whole.fault(check)) is None:
            continue
        about, fails_N = fault
        if check.severity == "error":
            found[about].append(check.id)
            left_out_N |= fails_N
        else:
            found["form_warnings" if about == "form" else "warnings"].append(check.id)
    return Judged(**{name: tuple(ids) for name, ids in found.items()},
                  left_out=tuple(np.flatnonzero(left_out_N).tolist()), total=len(frame), files=())


class _Whole:
    """All rows, as Great Expectations takes them, and the form of each file."""

    def __init__(self, frame: pd.DataFrame, forms: Sequence[pd.DataFrame], typed: bool):
        self._frame, self._plain, self._forms, self._typed = frame, gate.plain_frame(frame), forms, typed
        self._batch, self._empty = gate.batch_of(self._plain), [gate.batch_of(one) for one in forms]

    def fault(self, check: Check) -> tuple[Literal["form", "rows", "tables"], Bools] | None:
        """What it is that fails the check, and which rows fail it each by itself, (N,); None: it holds."""
        fails_N = np.zeros(len(self._frame), np.bool_)
        if not all(set(columns_of(check)) <= set(one.columns) for one in self._forms):
            return "form", fails_N
        if is_form(check) and (self._typed or check.type not in TYPES):
            if not all(batch is not None and gate.passes(check, batch) for batch in self._empty):
                return "form", fails_N
            if check.type in TYPES:
                fails_N = self.failing(check, objects_only=True)
        elif check.type in TYPES:
            fails_N = of_another_type(self._plain, check)
        elif check.type in ROW_BY_ROW:
            fails_N = self.failing(check)
        elif self._batch is None or not gate.passes(check, self._batch):
            return "tables", fails_N
        return ("rows", fails_N) if fails_N.any() else None

    def failing(self, check: Check, *, objects_only: bool = False) -> Bools:
        """Which rows fail the check, each judged by itself, (N,).

        A column may hold values of many types. A check that raises an error on one of them must not fail all rows; and one
        row's gap, or fraction, must not change what the others look like to a check. So rows are judged only together with
        rows of the same types, and those for which an error is raised fail.
        objects_only: only for columns whose type does not follow from the column itself.
        """
        columns = list(dict.fromkeys(columns_of(check)))
        if all(isinstance(self._frame[name].dtype, np.dtype) for name in columns):
            return _failing(self._frame, check, self._batch, objects_only=objects_only)
        fails_N = np.zeros(len(self._frame), np.bool_)
        for places, alike in by_types(self._frame[columns]):
            part = alike.iloc[places].reset_index(drop=True)
            fails_N[places] = _failing(part, check, gate.batch_of(part), objects_only=objects_only)
        return fails_N


def _failing(frame: pd.DataFrame, check: Check, batch: Any, *, objects_only: bool) -> Bools:
    """As `_Whole.failing`, in a table of numpy's own types. batch: it, or None if Great Expectations refuses it."""
    fails_N = np.zeros(len(frame), np.bool_)
    mixed = [name for name in columns_of(check) if frame[name].dtype == object]
    if not mixed and objects_only:
        return fails_N
    if not mixed and batch is not None:
        found = gate.places_that_fail(check, batch)
        fails_N[slice(None) if found is None else list(found)] = True
        return fails_N
    for places in _alike(frame, mixed):
        part = frame.iloc[places][list(dict.fromkeys(columns_of(check)))].reset_index(drop=True)
        batch = gate.batch_of(part)
        found = None if batch is None else gate.places_that_fail(check, batch)
        fails_N[places if found is None else places[list(found)]] = True
    return fails_N


def _alike(frame: pd.DataFrame, columns: Sequence[str]) -> Iterator[npt.NDArray[np.int64]]:
    kinds = [tuple(type(value).__name__ for value in row) for row in zip(
        *(frame[name].tolist() for name in columns), strict=True)] or [()] * len(frame)
    for kind in sorted(set(kinds)):
        yield np.flatnonzero(np.array([one == kind for one in kinds], np.bool_))


def rows_that_fail(frame: pd.DataFrame, check: Check) -> Bools:
    """Which rows fail a check that looks at each by itself, or at its type where the column holds objects, (N,).

    frame: in numpy's own types.
    """
    with gate.silence():
        part = frame[list(dict.fromkeys(columns_of(check)))].reset_index(drop=True)
        return _failing(part, check, gate.batch_of(part), objects_only=check.type in TYPES)


def of_another_type(frame: pd.DataFrame, check: Check) -> Bools:
    """For a file without types: the rows whose value is not a number, or not a whole one, although the contract says so."""
    named = check.kwargs.get("type_", check.kwargs.get("type_list", []))
    types = [str(one).lower() for one in (named if isinstance(named, list) else [named])]
    (column,) = columns_of(check)
    if not types or not all(one.startswith(("int", "uint", "float")) for one in types):
        return np.zeros(len(frame), np.bool_)
    there_N = frame[column].notna().to_numpy()
    number_N = gate.numbers_in(frame[column])
    fails_N: Bools = there_N & ~np.isfinite(number_N)
    if not any(one.startswith("float") for one in types):
        with np.errstate(invalid="ignore"):
            fails_N |= np.isfinite(number_N) & (number_N % 1 != 0)
    return fails_N


# -- in a process of its own -------------------------------------------------------------------------------------------


def judge_in_subprocess(paths: Sequence[Path], contract: Path, *, timeout_s: float = 300) -> Judged:
    """`judge`, in a process of its own that has no credentials: for a long-lived worker.

    Raises what `judge` and `load_contract` raise; SetupError if the process dies or takes longer than `timeout_s`.
    """
    agreed = {check.id for check in load_contract(contract).checks}
    with tempfile.TemporaryDirectory() as home:
        environment = {"HOME": home, "PATH": os.defpath, "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
                       "OMP_NUM_THREADS": "1", "GX_ANALYTICS_ENABLED": "false", **as_parent()}
        try:
            child = subprocess.run(
                [sys.executable, "-P", "-m", __name__, *(str(path.resolve()) for path in (contract, *paths))],
                cwd=home, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            child = None
    if child is None:
        raise SetupError(f"checking the rows at {paths[0].parent} took longer than {timeout_s:g} s and was stopped")
    return _answer(child.stdout, agreed, paths[0])


def _answer(line: bytes, agreed: set[CheckId], rows: Path) -> Judged:
    """What the child found. Nothing that it printed is passed on unless it is an id of the contract, or a row's place."""
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    match answer:
        case {"files": list(files)} if files:
            return _together([_answer(json.dumps(file).encode(), agreed, rows) for file in files])
        case {"left_out": list(places), "total": int(total), **found} if (
                all(isinstance(place, int) for place in places) and (ids := _ids_in(found, agreed)) is not None):
            return Judged(**ids, left_out=tuple(places), total=total, files=())
        case {"error": str(kind), "message": str(message)} if kind in _ERRORS:
            raise _ERRORS[kind](message)
        case _:
            raise SetupError(f"the process that checks the rows at {rows} ended without an answer; is there enough "
                             f"memory? 'python -m validation.judging CONTRACT {rows}' runs it by hand")


def _ids_in(found: dict[object, object], agreed: set[CheckId]) -> dict[Kind, tuple[CheckId, ...]] | None:
    """The failed checks of each kind; None: anything but ids of the contract is among them."""
    ids: dict[Kind, tuple[CheckId, ...]] = {}
    for name in _IDS:
        said = found.get(name)
        if not isinstance(said, list) or not all(isinstance(one, str) and one in agreed for one in said):
            return None
        ids[name] = tuple(said)
    return ids


def _main(contract: str, *paths: str) -> None:
    """The child: one line of JSON on standard output, and nothing else on any stream, not even from C code."""
    end_with_parent()
    with os.fdopen(os.dup(1), "w") as answer:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        files = [Path(path) for path in paths]
        try:
            gate.limited_by(files)
            found: Any = {"files": [vars(one) | {"files": ()} for one in judge(files, load_contract(Path(contract))).files]}
        except (SetupError, ContractError) as error:
            found = {"error": type(error).__name__, "message": str(error)}
        json.dump(found, answer)


if __name__ == "__main__":
    _main(*sys.argv[1:])
