"""Checks on all rows together that can be judged from a little of each part of the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from validation.contract import Check

if TYPE_CHECKING:
    import pandas as pd


class Tally(Protocol):
    """What is kept of the parts that were seen."""

    def add(self, part: pd.DataFrame) -> None:
        """See one more part."""

    def holds(self) -> bool:
        """The verdict on all of them."""


def tally_for(check: Check) -> Tally | None:
    """For one check; None: there is none, and Great Expectations needs the whole column."""
    make = _TALLIES.get(check.type)
    given = {key: check.kwargs[key] for key in ("min_value", "max_value", "value") if check.kwargs.get(key) is not None}
    numbers = {key: one for key, one in given.items() if isinstance(one, int | float) and not isinstance(one, bool)}
    if make is None or len(numbers) < len(given) or check.kwargs.get("strict_min") or check.kwargs.get("strict_max"):
        return None
    if "min_value" in numbers and "max_value" in numbers and numbers["min_value"] > numbers["max_value"]:
        return None
    return make(check.kwargs)


class _Range:
    def __init__(self, kwargs: dict[str, Any]):
        self.low, self.high = (kwargs.get(key, kwargs.get("value")) for key in ("min_value", "max_value"))
        self.column = str(kwargs.get("column"))

    def inside(self, value: float) -> bool:
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


class _Rows(_Range):
    """How many rows there are."""

    found = 0

    def add(self, part: pd.DataFrame) -> None:
        self.found += len(part)

    def holds(self) -> bool:
        return self.inside(self.found)


class _Present(_Rows):
    """The share of rows that have a value."""

    there = 0

    def add(self, part: pd.DataFrame) -> None:
        super().add(part)
        self.there += int(part[self.column].notna().sum())

    def holds(self) -> bool:
        return self.inside(self.there / self.found)


class _Distinct(_Range):
    """How many values there are; no more of them are kept than the bounds ask for."""

    def __init__(self, kwargs: dict[str, Any]):
        super().__init__(kwargs)
        self._most = max(one for one in (0, self.low, self.high) if one is not None)
        self._seen: set[Any] = set()

    def add(self, part: pd.DataFrame) -> None:
        if len(self._seen) <= self._most:
            self._seen.update(part[self.column].dropna().unique().tolist())

    def holds(self) -> bool:
        return self.inside(len(self._seen))


_TALLIES: dict[str, Callable[[dict[str, Any]], Tally]] = {
    "expect_table_row_count_to_be_between": _Rows,
    "expect_table_row_count_to_equal": _Rows,
    "expect_column_proportion_of_non_null_values_to_be_between": _Present,
    "expect_column_unique_value_count_to_be_between": _Distinct,
}
