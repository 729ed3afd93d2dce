"""How the values of one column lie."""

from __future__ import annotations

import itertools
import math
from numbers import Real
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from fedround.statistics.base import Axis, Evidence, Float64, Int64
from fedround.statistics.counts import Counts
from fedround.values import ColumnName, Value

Number = Annotated[float, Field(ge=-1e15, le=1e15)]


class Ranges(Value):
    """A column of numbers, cut at public edges.

    There is a range below the first edge, one between each two, one from the last edge up, and a last one for records that
    have no number there. A range holds its lower edge, and not its upper one.
    """

    column: ColumnName
    edges: Annotated[tuple[Number, ...], Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _check_edges(self) -> Self:
        if any(later <= earlier for earlier, later in itertools.pairwise(self.edges)):
            raise ValueError("edges must ascend")
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """What each range is, in words."""
        between = (f"{low:g} to {high:g}" for low, high in itertools.pairwise(self.edges))
        return f"below {self.edges[0]:g}", *between, f"from {self.edges[-1]:g}", "missing"

    def group(self, value_N: npt.NDArray[Any]) -> Int64:
        """Which range each record is in, (N,). One text among numbers changes only its own record's."""
        number_N = as_numbers(value_N)
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
    return np.array([_number(value) for value in value_N.tolist()], dtype=np.float64)


def _number(value: object) -> float:
    if not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:           # a whole number beyond all floats lies beyond all edges, too
        return -math.inf if value < 0 else math.inf
