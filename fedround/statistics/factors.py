"""Columns as numbers that sums are made of: each between -1 and 1, by public bounds or values.

N records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from pydantic import model_validator

from fedround.statistics.base import Evidence, Float64
from fedround.statistics.histogram import Number, as_numbers
from fedround.statistics.levels import Levels
from fedround.values import ColumnName, Value


class Bounded(Value):
    """A column of numbers with public bounds; a number beyond them counts as the bound."""

    column: ColumnName
    low: Number
    high: Number

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.high - self.low < 1e-9:
            raise ValueError(f"the bounds of '{self.column}' must ascend, and be 1e-9 apart at least")
        return self

    @property
    def name(self) -> str:
        """For people."""
        return self.column

    @property
    def middle(self) -> float:
        """Of the bounds."""
        return (self.low + self.high) / 2

    @property
    def half(self) -> float:
        """The distance from there to a bound."""
        return (self.high - self.low) / 2

    def standard(self, evidence: Evidence) -> Float64:
        """(value - middle) / half, in [-1, 1], (N,); NaN where a record has no number."""
        value_N = np.clip(as_numbers(evidence.column(self.column)), self.low, self.high)
        standard_N: Float64 = np.clip((value_N - self.middle) / self.half, -1.0, 1.0)
        return standard_N


class Is(Levels):
    """Whether a column holds one of these values: 1 or 0; a record without a value counts as 0."""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.column} is {' or '.join(self.labels[:-1])}"

    @property
    def middle(self) -> float:
        """As `Bounded`: the number is as it is."""
        return 0.0

    @property
    def half(self) -> float:
        """As `Bounded`."""
        return 1.0

    @property
    def low(self) -> float:
        """The smallest number."""
        return 0.0

    @property
    def high(self) -> float:
        """The largest."""
        return 1.0

    def standard(self, evidence: Evidence) -> Float64:
        """1 or 0, (N,)."""
        return (self.group(evidence.column(self.column)) < len(self.values)).astype(np.float64)


Factor = Bounded | Is


def check_factors(explained: Sequence[str], of: Sequence[Factor]) -> None:
    """Raise ValueError if columns explain themselves, or each other: nothing would tell their coefficients apart."""
    names = [one.name for one in of]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"column '{twice}' is named twice")
    if itself := next((one for one in of if one.column in explained), None):
        raise ValueError(f"column '{itself.column}' is what is explained, and cannot explain")
