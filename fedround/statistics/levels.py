"""Groups of records by the values of a column."""

from __future__ import annotations

import math
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, StringConstraints, model_validator

from fedround.statistics.base import Int64
from fedround.values import LARGEST_WHOLE, ColumnName, Value

_WITHIN = Field(ge=-LARGEST_WHOLE, le=LARGEST_WHOLE)
Level = Annotated[str, StringConstraints(max_length=100)] | Annotated[int, _WITHIN] | Annotated[float, _WITHIN]
"""Above this, JSON's doubles cannot distinguish neighbouring whole numbers; such a number can be named only as text."""


class Levels(Value):
    """The values of a column that make groups: public, and named by the question. All other records are one group more.

    A number and its text are one value, 1 and "1", and so are a truth and its word, true and "true"; unless both are named.
    """

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
        by_text = {text_of(value): number for number, value in reversed(list(enumerate(self.values)))}
        return np.array([_place(place, by_text, value) for value in value_N.tolist()], dtype=np.int64)


def text_of(value: object) -> str | None:
    """One text for a value, however it is kept; None for None and NaN, which are no value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 2 ** 53:
        return str(int(value))
    return str(value)


def _place(place: dict[Any, int], by_text: dict[str | None, int], value: object) -> int:
    """A value that cannot be looked up (a list, say) is no level."""
    try:
        found = place.get(value)
    except TypeError:
        return len(place)
    if found is not None or value is None:
        return len(place) if found is None else found
    return by_text.get(text_of(value), len(place))
