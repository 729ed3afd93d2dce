"""How many records each group has."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, StringConstraints, model_validator

from fedround.statistics.base import Axis, Evidence, Int64
from fedround.statistics.counts import Counts
from fedround.values import LARGEST_WHOLE, ColumnName, Value

_WITHIN = Field(ge=-LARGEST_WHOLE, le=LARGEST_WHOLE)
Level = Annotated[str, StringConstraints(max_length=100)] | Annotated[int, _WITHIN] | Annotated[float, _WITHIN]
"""Above this, JSON's doubles cannot distinguish neighbouring whole numbers; such a number can be named only as text."""
MOST_CELLS = 10_000


class Levels(Value):
    """The values of a column that make groups: public, and named by the question. All other records are one group more."""

    column: ColumnName
    values: Annotated[tuple[Level, ...], Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        if len(set(self.values)) < len(self.values):
            raise ValueError(f"a value of '{self.column}' is named twice")
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """What each group is, in words."""
        return (*(str(value) for value in self.values), "other")

    def group(self, value_N: npt.NDArray[Any]) -> Int64:
        """Which group each record is in, (N,)."""
        place = {value: number for number, value in enumerate(self.values)}
        return np.array([_place(place, value) for value in value_N.tolist()], dtype=np.int64)


class GroupCounts(Counts):
    """Records by the groups of one column, or of several together: a table with one axis for each."""

    word: ClassVar[str] = "group_counts"
    in_words: ClassVar[str] = "counts of groups"
    kind: Literal["group_counts"] = "group_counts"
    by: Annotated[tuple[Levels, ...], Field(min_length=1, max_length=6)]

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if math.prod(self.shape) > MOST_CELLS:
            raise ValueError(f"{math.prod(self.shape)} groups are more than {MOST_CELLS}: name fewer columns or values")
        if len({levels.column for levels in self.by}) < len(self.by):
            raise ValueError("a column is named twice")
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """One axis for each column."""
        return tuple(len(levels.values) + 1 for levels in self.by)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """As `Counts`."""
        return tuple(Axis(levels.column, levels.labels) for levels in self.by)

    @property
    def columns(self) -> tuple[str, ...]:
        """As `Counts`."""
        return tuple(levels.column for levels in self.by)

    def cells(self, evidence: Evidence) -> Int64:
        """As `Counts`."""
        groups = [levels.group(evidence.column(levels.column)) for levels in self.by]
        flat_N = np.ravel_multi_index(tuple(groups), self.shape)
        return np.bincount(flat_N, minlength=math.prod(self.shape)).reshape(self.shape)


def _place(place: dict[Any, int], value: object) -> int:
    """A value that cannot be looked up (a list, say) is no level."""
    try:
        return place.get(value, len(place))
    except TypeError:
        return len(place)
