"""Which records a statistic is about: a filter that is decided by each record itself, so it moves no other record's part."""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from fedround.statistics.base import Evidence
from fedround.statistics.histogram import Number, as_days, as_numbers, check_days
from fedround.statistics.levels import Levels
from fedround.values import ColumnName, Value


class Between(Value):
    """Records whose number in a column is at least `low` and below `below`."""

    column: ColumnName
    low: Number | None = None
    below: Number | None = None
    days: bool = False
    """Whether the column holds dates, and the bounds are days since 1970."""

    @model_validator(mode="after")
    def _check_some(self) -> Self:
        if self.low is None and self.below is None:
            raise ValueError("give low, below or both: without a bound every record would do")
        if self.low is not None and self.below is not None and self.low >= self.below:
            raise ValueError(f"'{self.column}' is at least {self.low:g} and below {self.below:g}: no record is")
        if self.days:
            check_days([one for one in (self.low, self.below) if one is not None])
        return self

    def holds(self, evidence: Evidence) -> npt.NDArray[np.bool_]:
        """Which records these are, (N,)."""
        value_N = evidence.column(self.column)
        number_N = as_days(value_N) if self.days else as_numbers(value_N)
        above_N = number_N >= (-np.inf if self.low is None else self.low)
        return above_N & (number_N < (np.inf if self.below is None else self.below)) & ~np.isnan(number_N)


class OneOf(Levels):
    """Records whose value in a column is one of these."""

    def holds(self, evidence: Evidence) -> npt.NDArray[np.bool_]:
        """Which records these are, (N,)."""
        return self.group(evidence.column(self.column)) < len(self.values)


Where = Annotated[tuple[OneOf | Between, ...], Field(max_length=10)]
"""All of them must hold."""


def holds(where: tuple[OneOf | Between, ...], evidence: Evidence) -> npt.NDArray[np.bool_]:
    """Which records meet all conditions, (N,); of no condition (0,)."""
    told = [condition.holds(evidence) for condition in where]
    met_N: npt.NDArray[np.bool_] = np.logical_and.reduce(told) if told else np.ones(0, dtype=bool)
    return met_N
