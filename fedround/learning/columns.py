"""Columns of a common table as features, by public bounds and lists: a recipe that says `COLUMNS` writes no encoder.

Every value becomes numbers from 0 to 1, by itself: no other row, and nothing that was learnt from rows, is looked at. What is
said here is read by everybody who reads the recipe. So bounds and lists must be public knowledge: what is possible, what a
form allows, what a handbook lists; not the extremes of somebody's rows.

==========  ===============================================  =====================================================
column      numbers                                          places
==========  ===============================================  =====================================================
Numeric     how far between `low` and `high`                 1, and 1 for "missing"
Date        how far between `first` and `last`               1, and 1 for "missing"
Truth       0 or 1                                           1, and 1 for "missing"
Category    1 at the value's place, 0 at all others          1 for each of `values`, 1 for "other", 1 for "missing"
==========  ===============================================  =====================================================

A value that misses has 0 everywhere but 1 at "missing". With `missing=False` there is no such place, and a row without the
value counts for nothing. So does a row with a value of another kind: a text where a number belongs.

N rows, F features.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from fedround.errors import ContractError
from fedround.learning.cells import Bool, Float64, check_there, days, numbers
from fedround.values import LARGEST_WHOLE, ColumnName, Value, in_words

if TYPE_CHECKING:
    import pandas as pd

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

MOST_VALUES = 10_000
"""On the list of one column."""
_BLOCK = 8192
"""Rows that are encoded at a time: they stay in the processor's cache."""


def _day(text: str) -> str:
    datetime.date.fromisoformat(text)
    return text


Day = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"), AfterValidator(_day)]
"""As 2019-01-07."""


def _tuple(found: object) -> object:
    return tuple(found) if isinstance(found, list) else found


class OfColumn(Value):
    """What one column of the rows becomes. Subclasses say how many places it takes, and fill them."""

    holds: ClassVar[str]
    """What its values are, in words."""

    column: ColumnName
    missing: bool = True
    """Whether "missing" has a place. False: a row without the value counts for nothing."""

    def __init__(self, column: str, **said: Any):
        """The column's name first, all else by name: `Numeric("age", low=18, high=95)`. Raises ContractError."""
        try:
            super().__init__(**{"column": column, **said})
        except ValidationError as error:
            raise ContractError(f"column {column!r:.80}: {in_words(error)}") from None

    @property
    def width(self) -> int:
        """How many places it takes."""
        return len(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Of its places."""
        return (*self._places, *([f"{self.column} is missing"] if self.missing else []))

    @property
    def _places(self) -> tuple[str, ...]:
        return (self.column,)

    def read(self, values: pd.Series[Any]) -> tuple[Float64, Bool, Bool]:
        """What is put in, (N,); where a value is, (N,); and where one is or is missing, and not of another kind, (N,)."""
        number_N, there_N, good_N = numbers(values)
        return self._scaled(number_N, there_N), there_N, good_N

    def fill(self, values: pd.Series[Any], into_NW: Float32) -> Bool:
        """Fill the column's places, which are 0, and say which rows can be used, (N,)."""
        number_N, there_N, good_N = self.read(values)
        into_NW[:, 0] = np.where(there_N, number_N, 0)
        return self._with_missing(there_N, good_N, into_NW)

    def _scaled(self, number_N: Float64, there_N: Bool) -> Float64:
        raise NotImplementedError

    def _with_missing(self, there_N: Bool, good_N: Bool, into_NW: Float32) -> Bool:
        if not self.missing:
            return there_N
        into_NW[:, -1] = ~there_N
        return good_N


Bound = Annotated[float, Field(ge=-1e100, le=1e100)]
"""Of a column's numbers."""


class Numeric(OfColumn):
    """A number between `low` and `high`. What lies outside of them is set to the nearer one.

    scale: "log" for amounts whose few largest are far from all others: how far between 0 and log(1 + high - low).
    """

    holds: ClassVar[str] = "numbers"

    kind: Literal["numeric"] = "numeric"
    low: Bound
    high: Bound
    scale: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _in_order(self) -> Numeric:
        if not self.low < self.high or not np.isfinite(self.high - self.low):
            raise ValueError("'low' must be less than 'high'")
        return self

    def _scaled(self, number_N: Float64, there_N: Bool) -> Float64:
        above_N, span = number_N.clip(self.low, self.high) - self.low, self.high - self.low
        return np.asarray(above_N / span if self.scale == "linear" else np.log1p(above_N) / np.log1p(span))


class Truth(OfColumn):
    """True or false, or the numbers 1 and 0; another number is of another kind."""

    holds: ClassVar[str] = "true or false"

    kind: Literal["truth"] = "truth"

    def read(self, values: pd.Series[Any]) -> tuple[Float64, Bool, Bool]:
        """As `OfColumn`."""
        number_N, there_N, good_N = numbers(values)
        right_N = (number_N == 0) | (number_N == 1)
        return number_N, there_N & right_N, good_N & (right_N | ~there_N)


class Date(OfColumn):
    """A day, or a time, between the beginnings of the days `first` and `last`. What lies outside is set to the nearer one."""

    holds: ClassVar[str] = "dates"

    kind: Literal["date"] = "date"
    first: Day
    last: Day

    @model_validator(mode="after")
    def _in_order(self) -> Date:
        if not self.first < self.last:
            raise ValueError("'first' must be before 'last'")
        return self

    @property
    def low(self) -> float:
        """`first`, in days since 1970."""
        return float(np.datetime64(self.first, "D").astype(np.int64))

    @property
    def high(self) -> float:
        """`last`, in days since 1970."""
        return float(np.datetime64(self.last, "D").astype(np.int64))

    def read(self, values: pd.Series[Any]) -> tuple[Float64, Bool, Bool]:
        """As `OfColumn`."""
        days_N, there_N, good_N = days(values)
        return (days_N.clip(self.low, self.high) - self.low) / (self.high - self.low), there_N, good_N


class Category(OfColumn):
    """One of a list of `values`: texts, whole numbers, or truths. Any other value of that kind is "other"."""

    holds: ClassVar[str] = "texts or whole numbers"

    kind: Literal["category"] = "category"
    values: Annotated[
        tuple[StrictStr | StrictBool | Annotated[StrictInt, Field(ge=-LARGEST_WHOLE, le=LARGEST_WHOLE)], ...],
        BeforeValidator(_tuple), Field(min_length=1, max_length=MOST_VALUES)]

    @model_validator(mode="after")
    def _each_once(self) -> Category:
        if len({type(value) for value in self.values}) > 1:
            raise ValueError("'values' must be of one kind: texts, whole numbers, or truths")
        if len(set(self.values)) < len(self.values):
            raise ValueError("a value is on the list twice")
        return self

    @property
    def _places(self) -> tuple[str, ...]:
        return (*(f"{self.column} = {value}" for value in self.values), f"{self.column} is other")

    def places(self, values: pd.Series[Any]) -> tuple[Int64, Bool, Bool]:
        """The place of each value on the list, (N,), `len(self.values)` for any other; the rest as `OfColumn.read`."""
        import pandas as pd

        if isinstance(self.values[0], str):
            there_N = values.notna().to_numpy()
            if values.dtype == object:
                text_N = np.fromiter((isinstance(one, str) for one in values), np.bool_, len(values))
            else:
                text_N = np.full(len(values), pd.api.types.is_string_dtype(values.dtype))
            found_N = pd.Index(self.values, dtype=object).get_indexer(pd.Index(values.astype(object)))
            return np.where(found_N < 0, len(self.values), found_N), there_N & text_N, text_N | ~there_N
        number_N, there_N, good_N = numbers(values)
        listed = np.array(self.values, np.float64)
        order = listed.argsort()
        at_N = listed[order].searchsorted(np.where(there_N, number_N, listed[0])).clip(max=len(listed) - 1)
        place_N = order[at_N]
        return np.where(listed[place_N] == number_N, place_N, len(listed)), there_N, good_N

    def fill(self, values: pd.Series[Any], into_NW: Float32) -> Bool:
        """As `OfColumn`."""
        place_N, there_N, good_N = self.places(values)
        at = np.flatnonzero(there_N)
        into_NW[at, place_N[at]] = 1
        return self._with_missing(there_N, good_N, into_NW)


Column = Annotated[Numeric | Truth | Date | Category, Field(discriminator="kind")]


class Columns(Value):
    """The columns that a recipe learns from, in the order of their features."""

    columns: Annotated[tuple[Column, ...], BeforeValidator(_tuple), Field(min_length=1, max_length=10_000)]

    @model_validator(mode="after")
    def _each_once(self) -> Columns:
        names = [one.column for one in self.columns]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"column '{twice}' is said twice")
        return self

    @property
    def width(self) -> int:
        """How many features they make, F."""
        return sum(one.width for one in self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the features."""
        return tuple(name for one in self.columns for name in one.names)

    def encode(self, rows: pd.DataFrame) -> tuple[Float32, Bool]:
        """The features, between 0 and 1, (N, F), and which rows can be used, (N,): all others are 0.

        The rows may be as `validation.tables.to_frame` has them, or in numpy's own types; features of a subset of rows are
        that subset of the features. Raises ContractError if a column is not there.
        """
        check_there(rows, [one.column for one in self.columns])
        into_NF, good_N = np.zeros((len(rows), self.width), np.float32), np.ones(len(rows), np.bool_)
        for start in range(0, len(rows), _BLOCK):
            part, at = rows.iloc[start:start + _BLOCK], 0
            into_BF, good_B = into_NF[start:start + _BLOCK], good_N[start:start + _BLOCK]
            for one in self.columns:
                good_B &= one.fill(part[one.column], into_BF[:, at:at + one.width])
                at += one.width
            into_BF[~good_B] = 0
        return into_NF, good_N

    def all_of(self, rows: pd.DataFrame) -> Float32:
        """The features of rows all of which can be used. Raises ContractError otherwise."""
        features_NF, good_N = self.encode(rows)
        if not good_N.all():
            raise ContractError(self.why_not(rows[~good_N]))
        return features_NF

    def why_not(self, rows: pd.DataFrame) -> str:
        """For rows none of which can be used: the first column because of which, in words without a value."""
        for one in self.columns:
            if not one.fill(rows[one.column], np.zeros((len(rows), one.width), np.float32)).any():
                return f"column '{one.column}' must hold {one.holds}" + ("" if one.missing else ", in every row")
        return "in every row a column misses, or holds another kind of value than the recipe says"
