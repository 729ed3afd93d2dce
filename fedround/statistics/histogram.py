"""How the values of one column lie."""

from __future__ import annotations

import datetime
import itertools
import math
from collections.abc import Sequence
from numbers import Real
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from fedround.statistics.base import Axis, Evidence, Float64, Int64
from fedround.statistics.counts import Counts
from fedround.values import ColumnName, Value

Number = Annotated[float, Field(ge=-1e15, le=1e15)]
_FIRST_DAY, _LAST_DAY = datetime.date(1970, 1, 1).toordinal(), datetime.date.max.toordinal()


class Ranges(Value):
    """A column of numbers, cut at public edges.

    There is a range below the first edge, one between each two, one from the last edge up, and a last one for records that
    have no number there. A range holds its lower edge, and not its upper one.
    """

    column: ColumnName
    edges: Annotated[tuple[Number, ...], Field(min_length=1, max_length=1000)]
    days: bool = False
    """Whether the column holds dates, and edges are days since 1970."""

    @model_validator(mode="after")
    def _check_edges(self) -> Self:
        if any(later <= earlier for earlier, later in itertools.pairwise(self.edges)):
            raise ValueError("edges must ascend")
        if self.days:
            check_days(self.edges)
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """What each range is, in words."""
        said = [day_of(edge) if self.days else _short(edge, self.edges) for edge in self.edges]
        between = (f"{low} to {high}" for low, high in itertools.pairwise(said))
        return f"{'before' if self.days else 'below'} {said[0]}", *between, f"from {said[-1]}", "missing"

    def group(self, value_N: npt.NDArray[Any]) -> Int64:
        """Which range each record is in, (N,). One text among numbers changes only its own record's."""
        number_N = as_days(value_N) if self.days else as_numbers(value_N)
        place_N = np.searchsorted(np.array(self.edges), number_N, side="right")
        place_N[np.isnan(number_N)] = len(self.edges) + 1
        return place_N


class Histogram(Ranges, Counts):
    """Records by the value of a column of numbers: a cell for each of the `Ranges` that the question names."""

    word: ClassVar[str] = "histograms"
    in_words: ClassVar[str] = "histograms of columns"
    kind: Literal["histogram"] = "histogram"

    @property
    def shape(self) -> tuple[int, ...]:
        """(cell,)."""
        return (len(self.edges) + 2,)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """As `Counts`."""
        return (Axis(self.column, self.labels),)

    @property
    def columns(self) -> tuple[str, ...]:
        """As `Counts`."""
        return (self.column,)

    def cells(self, evidence: Evidence) -> Int64:
        """As `Counts`."""
        return np.bincount(self.group(evidence.column(self.column)), minlength=len(self.edges) + 2)


def as_numbers(value_N: npt.NDArray[Any]) -> Float64:
    """Values as float64, NaN for what is not a number."""
    if value_N.dtype.kind in "biuf":
        return value_N.astype(np.float64)
    if value_N.dtype.kind in "mM":      # numpy would give the number of its ticks
        return np.full(len(value_N), np.nan)
    return np.array([_number(value) for value in value_N.tolist()], dtype=np.float64)


def _number(value: object) -> float:
    if not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:           # a whole number beyond all floats lies beyond all edges, too
        return -math.inf if value < 0 else math.inf


def as_days(value_N: npt.NDArray[Any]) -> Float64:
    """Dates and times, or texts like 2026-11-30 and 2026-11-30 12:00, as days since 1970; NaN for what is none."""
    told = value_N.astype("datetime64[us]").astype(object) if value_N.dtype.kind == "M" else value_N
    return np.array([_days(value) for value in told.tolist()], dtype=np.float64)


def _days(value: object) -> float:
    if isinstance(value, str):
        try:
            value = datetime.datetime.fromisoformat(value)
        except ValueError:
            return math.nan
    if not isinstance(value, datetime.date):
        return math.nan
    try:
        told = value.astimezone(datetime.UTC) if isinstance(value, datetime.datetime) and value.tzinfo else value
        whole = told.toordinal() - _FIRST_DAY
    except (ValueError, OverflowError):     # pandas' missing time; a zone that leaves the calendar
        return math.nan
    if not isinstance(told, datetime.datetime):
        return whole
    return whole + ((told.hour * 60 + told.minute) * 60 + told.second) / 86_400


def day_of(days: float) -> str:
    """Days since 1970 as a date."""
    return datetime.date.fromordinal(math.floor(days) + _FIRST_DAY).isoformat()


def check_days(days: Sequence[float]) -> None:
    """Raise ValueError unless all are whole, and in the calendar."""
    if any(day != math.floor(day) or not 1 <= day + _FIRST_DAY <= _LAST_DAY for day in days):
        raise ValueError("edges of dates are whole days since 1970, of years 1 to 9999")


def _short(edge: float, edges: Sequence[float]) -> str:
    """With so many digits that neighbours are told apart."""
    enough = (digits for digits in (6, 9, 12, 15) if len({f"{one:.{digits}g}" for one in edges}) == len(edges))
    return f"{edge:.{next(enough, 17)}g}"
