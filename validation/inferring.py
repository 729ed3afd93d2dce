"""A first contract, from a sample of rows that goes by in parts. A person reads it before anybody agrees on it.

The contract is for others, and a sample is somebody's rows. So no row's own value is to stand in it: a bound is moved away
from the extreme by a tenth of the span and then rounded outward, and a value is listed only if many rows hold it. That is a
habit and no promise: where the extremes lie can still be told, roughly.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fedround.values import MAX_CHECKS, Name, parse
from validation.contract import Check, ContractFile
from validation.row_parts import RowFiles
from validation.seen import Seen, walk

_MARGIN, _STEPS, _SHARE = 0.1, 10, 0.05


@dataclass(frozen=True)
class Inferred:
    """A first contract, and what it says of each column in words."""

    contract: ContractFile
    rows: int
    columns: tuple[tuple[str, str, str], ...]
    """Name, kind, and what the contract says."""
    notes: tuple[str, ...]
    """What a person should look at. It stays with whoever asked."""


def infer(tables: Sequence[RowFiles], name: Name, *, target: str | None = None, without: Sequence[str] = (),
          most_values: int = 20, rows_each: int = 10) -> Inferred:
    """The contract that rows like these meet. target: the column of labels; without: columns that it says nothing of.

    most_values: more than these are not listed; rows_each: a value that fewer rows hold is not, either.
    Raises ContractError for a target or a column that is not there; and what `RowFiles` raises.
    """
    walked = walk(tables, lambda: Seen(most_values), [] if target is None else [target], without)
    seen, rows, names = walked.columns, walked.rows, list(walked.columns)
    types = {column: str(walked.form[column].dtype) if all(files.typed for files in tables) else "" for column in names}
    said = {column: _Said(column, seen[column], types[column], column == target, rows_each) for column in names}
    first = {"id": "columns_as_agreed", "type": "expect_table_columns_to_match_set",
             "kwargs": {"column_set": names, "exact_match": False}}
    checks, notes = [first], [note for one in said.values() for note in one.notes]
    wanted = [check for kind in ("values", "kind", "gaps") for one in said.values() for check in one.checks.get(kind, ())]
    if len(wanted) >= MAX_CHECKS:
        notes.append(f"a contract has at most {MAX_CHECKS} checks: {len(wanted) + 1 - MAX_CHECKS} are left out, on gaps and "
                     "types first")
    kept = {id(check) for check in wanted[:MAX_CHECKS - 1]}
    checks += [check for one in said.values() for some in one.checks.values() for check in some if id(check) in kept]
    contract = parse(ContractFile, {"name": name, "checks": list(named_once(checks))}, "the inferred contract")
    return Inferred(contract, rows, tuple((column, one.kind, one.words) for column, one in said.items()), tuple(notes))


def outward(low: float, high: float, *, whole: bool = False) -> tuple[float, float]:
    """Readable bounds around [low, high]. Each lies outside of it by a tenth of its length or more; one that is 0 may not.

    whole: they are whole numbers.
    """
    span = high - low or abs(high) or 1.0
    step = readable(max(span / _STEPS, 1.0 if whole else 0.0))
    below, above = math.floor((low - _MARGIN * span) / step), math.ceil((high + _MARGIN * span) / step)
    return times(max(0, below) if low >= 0 else below, step), times(min(0, above) if high <= 0 else above, step)


def readable(least: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, 50 … and 0.5, 0.2, 0.1 … that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-12))


def times(count: int, step: float) -> float:
    """So many steps, without the last digits that floating point adds; a whole number as such."""
    value = round(count * step, max(0, 1 - math.floor(math.log10(step)))) + 0.0
    return int(value) if value.is_integer() and abs(value) < 2 ** 53 else value


class _Said:
    """What the contract says of one column."""

    def __init__(self, name: str, seen: Seen, stored: str, is_target: bool, rows_each: int):
        self.name, self._seen, self._is_target = name, seen, is_target
        self.checks: dict[str, list[dict[str, Any]]] = {}
        self.notes: list[str] = []
        self._found: list[str] = []
        kind = next(iter(seen.kinds)) if len(seen.kinds) == 1 else "mixed" if seen.kinds else "empty"
        whole = kind == "number" and seen.whole and not seen.infinite
        self.kind = "whole numbers" if whole else {
            "number": "numbers", "text": "texts", "truth": "true or false", "time": "times", "mixed": "of several kinds",
            "empty": "nothing"}[kind]
        self._types(kind, stored or {"text": "object"}.get(kind, "int64" if whole and not seen.gaps else "float64"))
        self._gaps()
        self._values(kind, whole, rows_each)
        self.words = ", ".join(self._found) or "only that it is there"

    def _put(self, about: str, suffix: str, expectation: str, **kwargs: object) -> None:
        self.checks.setdefault(about, []).append(
            {"id": f"{slug(self.name)}_{suffix}", "type": f"expect_column_{expectation}",
             "kwargs": {"column": self.name, **kwargs}})

    def _types(self, kind: str, stored: str) -> None:
        """stored: the type that the file declares; of a file that declares none, what its numbers are."""
        if kind == "number":
            self._put("kind", "is_number" if stored.startswith("float") else "is_whole_number", "values_to_be_of_type",
                      type_=stored)
        elif kind == "text" and stored == "object":        # a category's type is no text's
            self._put("kind", "is_text", "values_to_be_of_type", type_="str")
        elif kind in {"mixed", "empty"}:
            self.notes.append(f"'{self.name}' holds {self.kind}: say by hand what it must be, or leave it out with --without")

    def _gaps(self) -> None:
        seen = self._seen
        if not seen.gaps:
            self._put("gaps", "is_there", "values_to_not_be_null")
            self._found.append("no gaps")
            return
        least = _SHARE * math.floor(((seen.rows - seen.gaps) / seen.rows - _MARGIN) / _SHARE)
        if self._is_target:
            self._put("gaps", "is_there", "values_to_not_be_null")
            self.notes.append(f"the target '{self.name}' has gaps: these rows will count for nothing")
        elif least > 0:
            self._put("gaps", "mostly_there", "proportion_of_non_null_values_to_be_between", min_value=round(least, 2))
            self.checks["gaps"][-1]["severity"] = "warning"
            self._found.append(f"at least {least:.0%} there (warning)")

    def _values(self, kind: str, whole: bool, rows_each: int) -> None:
        seen = self._seen
        listed = None if seen.values is None or kind == "truth" or not (whole or kind == "text") else sorted(seen.values)
        rare = sum(count < rows_each for count in (seen.values or {}).values())
        if listed and not rare:
            values = [int(one) for one in listed] if whole else listed
            self._put("values", "is_known", "values_to_be_in_set", value_set=values)
            self._found.append("one of " + ", ".join(map(str, values)))
        elif kind == "number" and seen.low <= seen.high:
            low, high = outward(seen.low, seen.high, whole=whole)
            self._put("values", "in_range", "values_to_be_between", min_value=low, max_value=high)
            self._found.append(f"{low:,} to {high:,}")
        elif kind == "text":
            low, high = outward(seen.low, seen.high, whole=True)
            self._put("values", "length_in_range", "value_lengths_to_be_between", min_value=low, max_value=high)
            self._found.append(f"{low:,} to {high:,} letters")
        if kind == "text" and (rare or seen.values is None):
            self.notes.append(f"'{self.name}': the values are not listed, since there are many, or some are held by fewer "
                              f"than {rows_each} rows. List them by hand; if they are names or identifiers, use --without")
        if seen.infinite:
            self.notes.append(f"'{self.name}' holds infinite numbers, which are outside of every bound")
        if self._is_target and (rare or (whole and seen.values is None)):
            self.notes.append(f"the target '{self.name}': its labels are not listed, since there are many, or some are held "
                              f"by fewer than {rows_each} rows. List them by hand")


def slug(column: str) -> str:
    """A column's name, as far as it can be part of a check's id."""
    return re.sub(r"[^a-z0-9_.-]+", "_", column.lower())[:50].strip("_") or "column"


def named_once(checks: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The checks, each under an id of its own: two columns may be spelled alike."""
    taken: set[str] = set()
    for check in checks:
        name, number = check["id"], 1
        while name in taken:
            number += 1
            name = f"{check['id']}_{number}"
        taken.add(name)
        yield {**check, "id": name}


def as_text(contract: ContractFile) -> str:
    """The file: one check on each line, so that a person can read it, and compare two versions."""
    import json

    def line(check: Check) -> str:
        return json.dumps(check.model_dump(exclude_defaults=True), ensure_ascii=False)

    lines = ",\n".join(f"    {line(check)}" for check in contract.checks)
    return f'{{\n  "name": {json.dumps(contract.name)},\n  "checks": [\n{lines}\n  ]\n}}\n'
