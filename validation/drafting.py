"""A first recipe's columns and target, from a sample of rows that goes by in parts. A person reads them first.

As in `validation.inferring`, no row's own value is to stand in the result: a bound is moved away from the extreme and rounded
outward, and a value is listed only if many rows hold it. That is a habit and no promise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from fedround.errors import ContractError
from fedround.learning.columns import Category, Column, Numeric, Truth
from fedround.spoken import how_many
from fedround.values import LARGEST_WHOLE, ColumnName
from validation.inferring import outward, readable, times
from validation.row_parts import RowFiles
from validation.seen import Seen, walk

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["classify", "count", "regress", "survive"]

CODES, CLASSES, _INTERVALS = 8, 10, 10
"""Whole numbers are codes if there are no more of them; a target's are classes."""
_MOST_SEEN, _SAMPLE = 1000, 20_000
_LARGEST = 1e9
"""A task's numbers are no larger, and their bounds no nearer to each other than one part of it."""
_SKEWED = 20.0
"""Amounts are scaled by their logarithm if the largest lies so many times as far from the least as the middle one does."""
_ID = re.compile(r"(?:^|[^a-z])(?:ids?|uuid|guid|mrn|ssn|iban|e-?mail|phone|name|index|key|nr|no|row)$", re.IGNORECASE)
_DAY = r"^\s*[0-9]{1,4}[-./][0-9]{1,2}[-./][0-9]{1,4}(?:[T ].*)?$"


@dataclass(frozen=True)
class Draft:
    """What a first recipe says."""

    columns: tuple[Column, ...]
    why: dict[str, str]
    """What was decided of each column that is in, in a few words."""
    left_out: dict[str, str]
    """Columns that are not in, and why."""
    kind: Kind
    targets: tuple[Column, ...]
    """What is learnt: one column; time and event, if it is survival. Of a category the place of each value is its label."""
    rows: int
    notes: tuple[str, ...]
    """What a person should look at."""

    @property
    def edges(self) -> tuple[float, ...]:
        """Of survival: ten intervals of time, about as long as each other, up to the largest bound."""
        high = self.targets[0].high if isinstance(self.targets[0], Numeric) else 1.0
        step = readable(high / _INTERVALS)
        return tuple(float(times(place, step)) for place in range(1, math.ceil(high / step) + 1))

    @property
    def outputs(self) -> int:
        """How many numbers the model gives for each row."""
        labels = len(self.targets[0].values) if isinstance(self.targets[0], Category) else 2
        return len(self.edges) if self.kind == "survive" else labels if labels > 2 else 1


class _Looked(Seen):
    """Also: whether every value is another one, and the first few values."""

    def __init__(self) -> None:
        super().__init__(_MOST_SEEN)
        self.unique, self._known = True, set[Any]()
        self.sample: list[Any] = []

    def add(self, values: pd.Series[Any]) -> None:
        """As `Seen`."""
        super().add(values)
        there = values.dropna()
        self.sample += there.head(_SAMPLE - len(self.sample)).tolist()
        if self.unique and len(there):
            new = set(there.tolist())
            self.unique = len(new) == len(there) and not new & self._known
            self._known = self._known | new if self.unique else set()

    @property
    def kind(self) -> str:
        """As `seen.kind_of`, of all rows; days and times that are written as texts are times; "empty"."""
        kind = next(iter(self.kinds)) if len(self.kinds) == 1 else "mixed" if self.kinds else "empty"
        texts = [one for one in self.sample[:1000] if isinstance(one, str)] if kind == "text" else []
        return "time" if texts and sum(re.match(_DAY, one) is not None for one in texts) > len(texts) / 2 else kind

    @property
    def is_whole(self) -> bool:
        return self.whole and not self.infinite

    def common(self, rows_each: int) -> list[Any]:
        """The values that so many rows hold, the most frequent first."""
        known = sorted((self.values or {}).items(), key=lambda one: (-one[1], str(one[0])))
        return [value for value, count in known if count >= rows_each]

    @property
    def skewed(self) -> bool:
        """Whether the largest numbers are far from all others."""
        numbers = sorted(self.sample)
        middle = numbers[len(numbers) // 2]
        return self.low >= 0 and self.high - self.low > _SKEWED * max(middle - self.low, 1.0)


def draft(tables: Sequence[RowFiles], targets: Sequence[str], *, kind: Kind | None = None, without: Sequence[str] = (),
          levels: int = 20, rows_each: int = 10) -> Draft:
    """What a first recipe for rows like these says.

    targets: the column of what is learnt; time and event for "survive". kind: what is learnt; None: guessed from the target.
    without: columns that are left out. levels: the most values of a category that are listed; rows_each: a value that fewer
    rows hold is not. Raises ContractError, in one sentence, for rows from which nothing can be learnt; and what `RowFiles`
    raises.
    """
    walked = walk(tables, _Looked, targets, without)
    of = _Deciding(levels, rows_each, walked.rows)
    columns, left_out = [], dict.fromkeys(without, "you said so")
    for name, seen in walked.columns.items():
        if name in targets:
            continue
        found = of.column(name, seen)
        if isinstance(found, str):
            left_out[name] = found
        else:
            columns.append(found)
    if not columns:
        raise ContractError("no column is left to learn from: " + ("the rows have no other column than the target"
                            if not left_out else "; ".join(f"'{name}' {why}" for name, why in left_out.items())[:400]))
    looked = [walked.columns[name] for name in targets]
    kind = kind or ("survive" if len(targets) == 2 else of.guess(looked[0]))
    learnt = tuple(of.target(name, one, kind, place) for place, (name, one) in enumerate(zip(targets, looked, strict=True)))
    return Draft(tuple(columns), of.why, left_out, kind, learnt, walked.rows, tuple(of.notes))


@dataclass
class _Deciding:
    """How columns are decided, and what there is to say about it."""

    levels: int
    rows_each: int
    rows: int

    def __post_init__(self) -> None:
        self.why: dict[str, str] = {}
        self.notes: list[str] = []

    def column(self, name: str, seen: _Looked) -> Column | str:
        """What becomes of a column; a text: why it is left out."""
        try:
            TypeAdapter(ColumnName).validate_python(name)
        except ValidationError:
            return "has a name that is no single line of text: rename it"
        out = {"time": "holds days or times: what of them matters (an age, a season, a span) is for a person to say",
               "mixed": "holds values of several kinds", "empty": "holds nothing"}
        kind = seen.kind
        if kind in out:
            return out[kind]
        if seen.values is not None and len(seen.values) < 2:
            return "holds one value only"
        if seen.unique and self.rows >= 2 * self.rows_each and self._identifies(name, kind, seen):
            return "has another value in every row, as a number or name of records has"
        self.why[name] = f"gaps in {max(1, round(100 * seen.gaps / seen.rows))} % of the rows" if seen.gaps else ""
        if kind == "truth":
            return Truth(column=name)
        return self._text(name, seen) if kind == "text" else self._number(name, seen)

    def _identifies(self, name: str, kind: str, seen: _Looked) -> bool:
        dense = seen.is_whole and seen.high - seen.low < 2 * self.rows
        return kind == "text" or (kind == "number" and seen.is_whole and (dense or _ID.search(name) is not None))

    def _text(self, name: str, seen: _Looked) -> Column | str:
        listed = seen.common(self.rows_each)[:self.levels]
        held = sum((seen.values or {})[value] for value in listed)
        if 2 * held < seen.rows - seen.gaps:
            return (f"holds texts most of which fewer than {self.rows_each} rows share, or more than {self.levels} different "
                    "ones: names, or free text")
        if rare := len(seen.values or {}) - len(listed):
            self._say(name, f"\"other\" stands for {how_many(rare, 'rarer value')}")
        return Category(column=name, values=tuple(sorted(listed)))

    def _number(self, name: str, seen: _Looked) -> Column | str:
        values = sorted(seen.values or {})
        whole = seen.is_whole and max(abs(seen.low), abs(seen.high)) <= LARGEST_WHOLE
        if seen.low > seen.high:
            return "holds no finite number"
        if whole and values == [0, 1]:
            return Truth(column=name)
        if whole and 2 <= len(values) <= CODES and len(seen.common(self.rows_each)) == len(values):
            self._say(name, "few whole numbers, taken for codes: if their order matters, say Numeric")
            return Category(column=name, values=tuple(map(int, values)))
        if seen.infinite:
            self.notes.append(f"'{name}' holds infinite numbers: they are set to the nearer bound")
        low, high = outward(seen.low, seen.high, whole=whole)
        if seen.skewed:
            self._say(name, "a few are far larger than all others")
        return Numeric(column=name, low=low, high=high, scale="log" if seen.skewed else "linear")

    def _say(self, name: str, why: str) -> None:
        self.why[name] = "; ".join(filter(None, [self.why[name], why]))

    # -- what is learnt

    def guess(self, seen: _Looked) -> Kind:
        """What a target of such values asks for."""
        few = seen.values is not None and len(seen.values) <= CLASSES
        if seen.kind in {"truth", "text"} or (seen.kind == "number" and seen.is_whole and few):
            return "classify"
        return "count" if seen.is_whole and seen.low >= 0 else "regress"

    def target(self, name: str, seen: _Looked, kind: Kind, place: int) -> Column:
        """The target's column. Raises ContractError if it is none of that kind."""
        self._check_target(name, seen)
        if seen.gaps:
            self.notes.append(f"the target '{name}' has gaps: rows without it count for nothing")
        if kind == "classify" or (kind == "survive" and place == 1):
            return self._labels(name, seen, kind)
        if seen.kind != "number" or seen.low > seen.high:
            raise ContractError(f"the target '{name}' holds no numbers, and --task {kind} learns numbers: leave --task out, "
                                "or name another column")
        if kind in {"count", "survive"} and seen.low < 0:
            raise ContractError(f"the target '{name}' holds negative numbers, and --task {kind} learns numbers from 0 up")
        if kind == "regress" and seen.skewed:
            self.notes.append(f"the target '{name}': a few are far larger than all others, and would decide alone; --task "
                              "count suits amounts from 0 up")
        low, high = outward(seen.low, seen.high, whole=seen.is_whole)
        low = 0 if kind in {"count", "survive"} else low
        if not (max(abs(low), abs(high)) <= _LARGEST and high - low >= 1 / _LARGEST):
            raise ContractError(f"the target '{name}' holds numbers that are too large, or too near to each other: expected "
                                "at most 1e9, and 1e-9 apart; write it in another unit, such as millions")
        return Numeric(column=name, low=low, high=high, missing=False)

    def _check_target(self, name: str, seen: _Looked) -> None:
        words = {"time": "days or times", "mixed": "values of several kinds", "empty": "nothing"}
        if seen.kind in words:
            raise ContractError(f"the target '{name}' holds {words[seen.kind]}: it must hold numbers, texts or truths")
        if seen.values is not None and len(seen.values) < 2:
            raise ContractError(f"the target '{name}' holds one value only: there is nothing to learn; take rows of every "
                                "kind")

    def _labels(self, name: str, seen: _Looked, kind: Kind) -> Column:
        most, numbers = self.levels, "learn numbers with --task regress"
        if kind == "survive":                                 # of an event
            most, numbers = 2, "name the column that says whether it was seen"
        if seen.kind == "truth" or sorted(seen.values or {}) == [0, 1]:
            return Truth(column=name, missing=False)
        if seen.kind == "number" and not seen.is_whole:
            raise ContractError(f"the target '{name}' holds fractions, which are no labels: use --task regress, or name "
                                "another column")
        listed = sorted(seen.common(self.rows_each))
        if seen.values is None or not 2 <= len(listed) <= most:
            found = (f"more than {how_many(_MOST_SEEN, 'different value')}" if seen.values is None else
                     how_many(len(seen.values), "different value"))
            raise ContractError(f"the target '{name}' holds {found}, of which {len(listed)} are "
                                f"held by {self.rows_each} rows or more: "
                                + ("an event must be 2 such values (--rows-each)" if kind == "survive" else
                                   f"labels must be 2 to {most} such values (--levels, --rows-each)")
                                + (f"; or {numbers}" if seen.kind == "number" else ""))
        if len(listed) < len(seen.values):
            self.notes.append(f"the target '{name}': {how_many(len(seen.values) - len(listed), 'value', 'is', 'are')} held "
                              f"by fewer than {self.rows_each} rows; they are no labels, and rows with them count for "
                              "nothing")
        values = tuple(map(int, listed)) if seen.kind == "number" else tuple(listed)
        return Category(column=name, values=values, missing=False)


KINDS: tuple[Kind, ...] = get_args(Kind)
