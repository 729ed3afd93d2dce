"""How the values of one column lie."""

from __future__ import annotations

import itertools
import math
from numbers import Real
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from fedround.statistics.counts import Axis, Counts, Evidence, Float64, Int64
from fedround.values import ColumnName

Number = Annotated[float, Field(ge=-1e15, le=1e15)]


class Histogram(Counts):
    """Records by the value of a column of numbers, between public edges that the question names.

    The table has a cell below the first edge, one between each two, one from the last edge up, and a last one for records
    that have no number there. A cell holds its lower edge, and not its upper one.
    """

    word: ClassVar[str] = "histograms"
    in_words: ClassVar[str] = "histograms of columns"
    kind: Literal["histogram"] = "histogram"
    column: ColumnName
    edges: Annotated[tuple[Number, ...], Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _check_edges(self) -> Self:
        if any(later <= earlier for earlier, later in itertools.pairwise(self.edges)):
            raise ValueError("edges must ascend")
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """(cell,)."""
        return (len(self.edges) + 2,)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """As `Counts`."""
        between = (f"{low:g} to {high:g}" for low, high in itertools.pairwise(self.edges))
        return (Axis(self.column, (f"below {self.edges[0]:g}", *between, f"from {self.edges[-1]:g}", "missing")),)

    @property
    def columns(self) -> tuple[str, ...]:
        """As `Counts`."""
        return (self.column,)

    def cells(self, evidence: Evidence) -> Int64:
        """As `Counts`."""
        value_N = numbers(evidence, self.column)
        missing_N = np.isnan(value_N)
        cell_N = np.searchsorted(np.array(self.edges), value_N, side="right")
        cell_N[missing_N] = len(self.edges) + 1
        return np.bincount(cell_N, minlength=len(self.edges) + 2)


def numbers(evidence: Evidence, column: str) -> Float64:
    """A column as float64, NaN for what is not a number. So one text among numbers changes only its own cell."""
    return as_numbers(evidence.column(column))


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
