"""Tasks about one number for each row, between public bounds."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from fedround.learning.examples import TARGET, Arrays
from fedround.learning.tasks.base import one_for_each_row
from fedround.learning.tasks.summed import SummedScores

Bound = Annotated[float, Field(ge=-1e9, le=1e9)]


class Between(SummedScores):
    """The bounds are what is possible, not the extremes of somebody's rows."""

    bounds: tuple[Bound, Bound]

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if not self.bounds[0] < self.bounds[1]:
            raise ValueError("the lower bound comes first, and the upper one is greater")
        return self

    @property
    def _width(self) -> float:
        return self.bounds[1] - self.bounds[0]

    def check(self, targets: Arrays, recipe: str) -> None:
        """As `Kind`."""
        super().check(targets, recipe)
        one_for_each_row(self, targets[TARGET], recipe)
