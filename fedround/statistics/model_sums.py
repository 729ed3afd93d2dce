"""Sums of how good a model is on rows that a site holds out: what a task adds up of every row, bounded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, StringConstraints

from fedround.privacy.entries import Rows
from fedround.statistics.base import Axis, Evidence, Float64
from fedround.statistics.sums import GaussianSum, RowsPart, in_blocks


class ModelSums(GaussianSum):
    """For each name the sum over held-out rows of what the task says of a row (`fedround.learning.tasks.Kind.summands`).

    The first number is 1 for every row, and every other one is in [-1, 1]. longest: the length (L2) of the longest row,
    public; a longer one is cut to it, whatever the task computes.
    """

    word: ClassVar[str] = "scores"
    in_words: ClassVar[str] = "sums of how good the model is"
    rows: ClassVar[Rows] = "validation"
    reads_model: ClassVar[bool] = True
    kind: Literal["model_sums"] = "model_sums"
    names: Annotated[tuple[Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.]{0,79}$")], ...],
                     Field(min_length=1, max_length=1000)]
    longest: Annotated[float, Field(gt=0, le=1000)]

    @property
    def shape(self) -> tuple[int, ...]:
        """(name,)."""
        return (len(self.names),)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """As `NoisedSum`."""
        return (Axis("sum of", self.names),)

    @property
    def scale(self) -> float:
        """As `NoisedSum`."""
        return self.longest

    def possible(self, table: Float64, leeway: float) -> bool:
        """As `NoisedSum`: no sum is farther from 0 than the rows, which are the first number, are many."""
        return bool(table[0] >= -leeway and (np.abs(table) <= max(float(table[0]), 0.0) + 2 * leeway).all())

    def contributions(self, evidence: Evidence) -> Iterable[RowsPart]:
        """As `GaussianSum`."""
        summand_NC = evidence.summands()
        for block in in_blocks(len(summand_NC), len(self.names)):
            yield RowsPart(summand_NC[block])
