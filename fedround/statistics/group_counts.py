"""How many records each group has."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from fedround.statistics.base import Axis, Evidence, Int64
from fedround.statistics.counts import Counts
from fedround.statistics.histogram import Ranges
from fedround.statistics.levels import Levels
from fedround.statistics.where import Where, holds

MOST_CELLS = 10_000


class GroupCounts(Counts):
    """Records by the groups of one column, or of several together: a table with one axis for each. Of no column: how many
    records there are.
    """

    word: ClassVar[str] = "group_counts"
    in_words: ClassVar[str] = "counts of groups"
    kind: Literal["group_counts"] = "group_counts"
    by: Annotated[tuple[Levels | Ranges, ...], Field(max_length=6)]
    where: Where = ()
    """Which records are counted."""

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if math.prod(self.shape) > MOST_CELLS:
            raise ValueError(f"{math.prod(self.shape)} groups are more than {MOST_CELLS}: name fewer columns or values")
        if len({levels.column for levels in self.by}) < len(self.by):
            raise ValueError("a column is named twice")
        if not (self.by or self.where):
            raise ValueError("name columns to count by, or a condition: how many records a site has is public")
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """One axis for each column."""
        return tuple(len(levels.labels) for levels in self.by)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """As `NoisedSum`."""
        return tuple(Axis(levels.column, levels.labels) for levels in self.by)

    @property
    def columns(self) -> tuple[str, ...]:
        """As `NoisedSum`."""
        return tuple(dict.fromkeys(one.column for one in (*self.by, *self.where)))

    def cells(self, evidence: Evidence) -> Int64:
        """As `Counts`."""
        counts_N = holds(self.where, evidence)
        groups = tuple(levels.group(evidence.column(levels.column)) for levels in self.by)
        flat_N = np.ravel_multi_index(groups, self.shape) if groups else np.zeros(len(counts_N), dtype=np.int64)
        counted_N = flat_N if not self.where else flat_N[counts_N]
        return np.bincount(counted_N, minlength=math.prod(self.shape)).reshape(self.shape)
