"""Sums by group, over the records that meet conditions. Groups and conditions are public, and each record decides for itself.

N records, K numbers that one record adds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from fedround.statistics.base import Axis, Evidence, Int64
from fedround.statistics.group_counts import MOST_CELLS
from fedround.statistics.histogram import Ranges
from fedround.statistics.levels import Levels
from fedround.statistics.sums import GaussianSum, RowsPart
from fedround.statistics.where import Where, holds

By = Annotated[tuple[Levels | Ranges, ...], Field(max_length=3)]
"""Which groups are summed by themselves; none: all records together."""


class GroupedSum(GaussianSum):
    """What sums by group have in common. A class says what its numbers are (`labels`), and what records add to those of their
    group (`added`); a record adds to one group, so the number of groups costs nothing.
    """

    by: By = ()
    where: Where = ()

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if math.prod(self.shape) > MOST_CELLS:
            raise ValueError(f"{math.prod(self.shape)} numbers are more than {MOST_CELLS}: name fewer columns or groups")
        if len({one.column for one in self.by}) < len(self.by):
            raise ValueError("groups name a column twice")
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """What the numbers of a group are, in words."""
        raise NotImplementedError

    def added(self, evidence: Evidence) -> Iterator[tuple[slice, RowsPart]]:
        """What blocks of records add to their group's numbers."""
        raise NotImplementedError

    @property
    def of_columns(self) -> tuple[str, ...]:
        """Which columns are summed."""
        raise NotImplementedError

    @property
    def groups(self) -> tuple[int, ...]:
        """How many there are, by each column of `by`."""
        return tuple(len(one.labels) for one in self.by)

    @property
    def shape(self) -> tuple[int, ...]:
        """The groups, and the numbers of each."""
        return *self.groups, len(self.labels)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """As `NoisedSum`."""
        return *(Axis(one.column, one.labels) for one in self.by), Axis("sum of", self.labels)

    @property
    def columns(self) -> tuple[str, ...]:
        """As `NoisedSum`."""
        return tuple(dict.fromkeys((*self.of_columns, *(one.column for one in (*self.by, *self.where)))))

    def contributions(self, evidence: Evidence) -> Iterator[RowsPart]:
        """As `GaussianSum`."""
        met_N = holds(self.where, evidence)
        groups = tuple(one.group(evidence.column(one.column)) for one in self.by)
        group_N = np.ravel_multi_index(groups, self.groups) if groups else None
        width = len(self.labels)
        for block, (value_NK, place_NK) in self.added(evidence):
            within_NK: Int64 = np.broadcast_to(np.arange(width), value_NK.shape) if place_NK is None else place_NK
            yield RowsPart(np.where(met_N[block, None], value_NK, 0.0) if self.where else value_NK,
                           within_NK if group_N is None else within_NK + width * group_N[block, None])
