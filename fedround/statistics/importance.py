"""How good a model is on held-out rows, as they are and with one column after the other taken from public rows.

F columns, K public rows, P numbers of an encoded row.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from fedround.privacy.entries import Rows
from fedround.privacy.noise import NoiseSource
from fedround.statistics.base import LOUDEST, Axis, Evidence, Float64, NoisedSum
from fedround.statistics.group_counts import MOST_CELLS
from fedround.statistics.model_sums import ModelSums
from fedround.statistics.scores import Scores
from fedround.values import ColumnName, Digest, Value

MOST_PUBLIC = 10_000
"""Numbers of all public rows together: they stand in the plan, and in every answer."""

Encoded = Annotated[float, Field(ge=-1e30, le=1e30)]
"""Small enough for float32, whatever the recipe gives."""


class MadeOf(Value):
    """Which numbers of an encoded row are made of a column."""

    column: ColumnName
    places: Annotated[tuple[Annotated[int, Field(ge=0, lt=MOST_PUBLIC)], ...], Field(min_length=1, max_length=MOST_PUBLIC)]


class Importance(NoisedSum):
    """F + 1 tables of `judged`: of the rows as they are, and for each column with what is made of it taken from public rows.

    From which of them, the row itself decides, by a hash under the model's digest. So a record moves its own place in every
    table and no other record's: all tables together by `scale` at most. (If values changed places between a site's rows, one
    record would move two.) For one price this is as exact as F + 1 releases of one table each.
    """

    word: ClassVar[str] = "importance"
    in_words: ClassVar[str] = "how good the model is with columns replaced"
    rows: ClassVar[Rows] = "validation"
    reads_model: ClassVar[bool] = True
    kind: Literal["importance"] = "importance"
    model: Digest
    judged: Scores | ModelSums
    """Without noise of its own: the noise is that of all tables."""
    of: Annotated[tuple[MadeOf, ...], Field(min_length=1, max_length=200)]
    public: Annotated[tuple[tuple[Encoded, ...], ...], Field(min_length=1, max_length=MOST_PUBLIC)]
    """Public rows as the recipe encodes them, all arrays side by side in the order of their names, (K, P)."""

    @model_validator(mode="after")
    def _check_tables(self) -> Self:
        if self.judged.noise_std != 0:
            raise ValueError("what is judged has no noise of its own: say 'noise_std' of the whole")
        if self.noise_of_one > LOUDEST:
            raise ValueError(f"noise of {self.noise_of_one:g} on each table is more than {LOUDEST}: ask for less, or about "
                             "fewer columns")
        if math.prod(self.shape) > MOST_CELLS:
            raise ValueError(f"{math.prod(self.shape)} numbers are more than {MOST_CELLS}: ask about fewer columns, or with "
                             "fewer bins")
        return self

    @model_validator(mode="after")
    def _check_places(self) -> Self:
        width = len(self.public[0])
        if len({one.column for one in self.of}) < len(self.of):
            raise ValueError("a column is named twice")
        if any(len(row) != width for row in self.public) or len(self.public) * width > MOST_PUBLIC:
            raise ValueError(f"public rows have equally many numbers, and {MOST_PUBLIC} in all at most")
        if any(place >= width for one in self.of for place in one.places):
            raise ValueError(f"a row has {width} numbers, and a column is said to make others")
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """(as they are, then column by column; and the shape of `judged`)."""
        return (1 + len(self.of), *self.judged.shape)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """As `NoisedSum`."""
        return Axis("replaced", ("nothing", *(one.column for one in self.of))), *self.judged.axes

    @property
    def scale(self) -> float:
        """As `NoisedSum`: a record is in all tables."""
        return math.sqrt(1 + len(self.of)) * self.judged.scale

    @property
    def noise_of_one(self) -> float:
        """Of the noise on each number of a table, in units of the scale of `judged`."""
        return self.noise_std * math.sqrt(1 + len(self.of))

    def possible(self, table: Float64, leeway: float) -> bool:
        """As `NoisedSum`."""
        return all(self.judged.possible(one, leeway) for one in table)

    def noised(self, evidence: Evidence, noise: NoiseSource) -> Float64:
        """As `NoisedSum`: each table keeps its own bound, in whole cells; then all are divided by the same number."""
        judged, public_KP = self.judged.model_copy(update={"noise_std": self.noise_of_one}), np.array(self.public)
        key = bytes.fromhex(self.model)
        changed = [evidence, *(evidence.replaced(public_KP, one.places, key) for one in self.of)]
        return np.stack([judged.noised(one, noise) for one in changed]) / math.sqrt(len(changed))
