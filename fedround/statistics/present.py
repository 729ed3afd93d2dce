"""In how many records columns hold something.

N records, K numbers that one record adds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from fedround.statistics.base import Evidence, Float64
from fedround.statistics.grouped import GroupedSum
from fedround.statistics.sums import RowsPart, in_blocks
from fedround.values import ColumnName


class Present(GroupedSum):
    """Records, and for each of the columns those that hold something in it: no None, no NaN."""

    word: ClassVar[str] = "missing"
    in_words: ClassVar[str] = "how often columns are empty"
    kind: Literal["present"] = "present"
    of: Annotated[tuple[ColumnName, ...], Field(min_length=1, max_length=200)]

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        if len(set(self.of)) < len(self.of):
            raise ValueError("a column is named twice")
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """As `GroupedSum`."""
        return "records", *self.of

    @property
    def of_columns(self) -> tuple[str, ...]:
        """As `GroupedSum`."""
        return self.of

    @property
    def scale(self) -> float:
        """As `NoisedSum`."""
        return math.sqrt(len(self.labels))

    def possible(self, table: Float64, leeway: float) -> bool:
        """As `NoisedSum`: there are no more records with something than records."""
        return bool(((table >= -leeway) & (table <= table[..., :1] + 2 * leeway)).all())

    def added(self, evidence: Evidence) -> Iterator[tuple[slice, RowsPart]]:
        """As `GroupedSum`."""
        there_NC = np.stack([_is_there(evidence.column(name)) for name in self.of], axis=1)
        for block in in_blocks(len(there_NC), len(self.labels)):
            one_N1 = np.ones((len(there_NC[block]), 1))
            yield block, RowsPart(np.concatenate([one_N1, there_NC[block].astype(np.float64)], axis=1))


def _is_there(value_N: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    return np.array([value is not None and not (isinstance(value, float) and math.isnan(value))
                     for value in value_N.tolist()], dtype=bool)
