"""Sums of columns and of their products: means, variances, correlations and least squares come from them.

N records, C columns, K numbers that one record adds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from fedround.statistics.base import Evidence, Float64
from fedround.statistics.factors import Factor
from fedround.statistics.grouped import GroupedSum
from fedround.statistics.products import pairs_of, products
from fedround.statistics.sums import RowsPart, in_blocks


class Moments(GroupedSum):
    """Sums of columns in standard form (`fedround.statistics.factors`).

    degree: what a record adds for each of the columns where it has a number: 1: one and its number; 2: one, its number and
    the square. "products": records with a number in every column add all products of two of (1, number, number, …), in the
    order of `pairs`.
    """

    word: ClassVar[str] = "moments"
    in_words: ClassVar[str] = "sums of columns"
    kind: Literal["moments"] = "moments"
    of: Annotated[tuple[Factor, ...], Field(min_length=1, max_length=50)]
    degree: Literal[1, 2, "products"]

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        if len({one.name for one in self.of}) < len(self.of):
            raise ValueError("a column is named twice")
        return self

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Which two of (1, number, number, …) are multiplied; 0 is the one."""
        return pairs_of(len(self.of) + 1)

    @property
    def labels(self) -> tuple[str, ...]:
        """As `GroupedSum`."""
        names = [one.name for one in self.of]
        if self.degree == "products":
            factors = ["1", *names]
            return tuple(f"{factors[one]} · {factors[other]}" for one, other in self.pairs)
        powers = (" is there", "", "²")[:self.degree + 1]
        return tuple(f"{name}{power}" for name in names for power in powers)

    @property
    def of_columns(self) -> tuple[str, ...]:
        """As `GroupedSum`."""
        return tuple(dict.fromkeys(one.column for one in self.of))

    @property
    def scale(self) -> float:
        """As `NoisedSum`: every number that a record adds is in [-1, 1], and all of them may be 1 together."""
        return math.sqrt(len(self.labels))

    def possible(self, table: Float64, leeway: float) -> bool:
        """As `NoisedSum`: no sum is farther from 0 than the records with these numbers are many."""
        if self.degree == "products":
            return bool((np.abs(table) <= table[..., :1] + 2 * leeway).all())
        of_each = table.reshape(-1, len(self.of), self.degree + 1)
        return bool((np.abs(of_each) <= of_each[..., :1] + 2 * leeway).all())

    def added(self, evidence: Evidence) -> Iterator[tuple[slice, RowsPart]]:
        """As `GroupedSum`."""
        standard_NC = np.stack([one.standard(evidence) for one in self.of], axis=1)
        for block in in_blocks(len(standard_NC), len(self.labels)):
            yield block, RowsPart(self._numbers(standard_NC[block]))

    def _numbers(self, standard_NC: Float64) -> Float64:
        there_NC = ~np.isnan(standard_NC)
        number_NC = np.where(there_NC, standard_NC, 0.0)
        if self.degree == "products":
            factor_NC = np.concatenate([np.ones((len(number_NC), 1)), number_NC], axis=1)
            return products(factor_NC) * there_NC.all(axis=1, keepdims=True)
        powers = (there_NC, number_NC, number_NC ** 2)[:self.degree + 1]
        return np.stack(powers, axis=2).reshape(len(number_NC), -1)
