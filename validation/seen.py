"""What columns of rows hold, kept while the rows go by in parts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fedround.errors import ContractError
from validation.row_parts import RowFiles

if TYPE_CHECKING:
    import pandas as pd


class Seen:
    """What is kept of one column while the rows go by."""

    def __init__(self, most_values: int):
        self._most = most_values
        self.rows = self.gaps = self.infinite = 0
        self.kinds: set[str] = set()
        self.low, self.high, self.whole = math.inf, -math.inf, True
        self.values: dict[Any, int] | None = {}
        """How many rows hold each value; None: there are too many values."""

    def add(self, values: pd.Series[Any]) -> None:
        """Some more rows' values."""
        there = values.dropna()
        self.rows, self.gaps = self.rows + len(values), self.gaps + len(values) - len(there)
        if len(there):
            self.kinds.add(kind := kind_of(there))
            counts = there.value_counts() if self.values is not None and kind in {"number", "text", "truth"} else None
            if kind == "number":
                self._add_numbers(there)
            elif kind == "text":
                lengths = (there if counts is None else counts.index.to_series()).str.len()
                self.low, self.high = min(self.low, int(lengths.min())), max(self.high, int(lengths.max()))
            if counts is not None:
                self._count(counts)

    def _add_numbers(self, there: pd.Series[Any]) -> None:
        import numpy as np

        number_N = there.to_numpy(np.float64)
        finite_N = number_N[np.isfinite(number_N)]
        self.infinite += len(number_N) - len(finite_N)
        if len(finite_N):
            self.low, self.high = min(self.low, float(finite_N.min())), max(self.high, float(finite_N.max()))
            self.whole = self.whole and (there.dtype.kind in "iu" or bool((finite_N % 1 == 0).all()))

    def _count(self, counts: pd.Series[int]) -> None:
        if self.values is None or len(self.values.keys() | set(counts.index[:self._most + 1])) > self._most:
            self.values = None
            return
        for value, count in counts.items():
            self.values[value] = self.values.get(value, 0) + int(count)


def kind_of(there: pd.Series[Any]) -> str:
    """What all of these values are: "truth", "number", "time", "text", or "mixed"."""
    import pandas as pd

    if pd.api.types.is_bool_dtype(there):
        return "truth"
    if pd.api.types.is_numeric_dtype(there):
        return "number"
    if pd.api.types.is_datetime64_any_dtype(there):
        return "time"
    return {"string": "text", "boolean": "truth"}.get(pd.api.types.infer_dtype(there.astype(object)), "mixed")


S = TypeVar("S", bound=Seen)


@dataclass(frozen=True)
class Walked(Generic[S]):
    """All rows went by."""

    rows: int
    columns: dict[str, S]
    form: pd.DataFrame
    """The first table's columns with their types, and no rows."""


def walk(tables: Sequence[RowFiles], see: Callable[[], S], asked: Sequence[str], without: Sequence[str]) -> Walked[S]:
    """Let all columns but those `without` go by, one `see()` for each.

    asked: columns that must be there. Raises ContractError for one that is not, and what `RowFiles` raises.
    """
    forms = [form for files in tables for form in files.forms()]
    names = [column for column in map(str, forms[0].columns) if column not in without]
    if unlike := [column for form in forms[1:] for column in names if column not in form.columns]:
        raise ContractError(f"the files do not have the same columns: '{unlike[0]}' is missing from one of them")
    for one in (*without, *asked):
        if one not in forms[0].columns or (one in asked and one in without):
            raise ContractError(f"there is no column '{one}' to speak of: the first file has "
                                f"{', '.join(map(repr, map(str, forms[0].columns)))}"[:400])
    seen, rows = {column: see() for column in names}, 0
    for part in itertools.chain.from_iterable(files.parts(names) for files in tables):
        rows += len(part)
        for column in names:
            seen[column].add(part[column])
    return Walked(rows, seen, forms[0])
