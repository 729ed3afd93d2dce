"""Sums of encoded rows by label: where each class lies, and how rows lie around it.

N records, F numbers of an encoded row, K labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from fedround.errors import ContractError
from fedround.privacy.entries import Rows
from fedround.statistics.base import Axis, Evidence, Float64
from fedround.statistics.sums import GaussianSum, RowsPart, in_blocks

COUNT, PLACE, SPREAD = 0.2, 0.93, 0.3
"""How much of a record's length goes to its label's count, to its numbers, and to their products: the squares add up to less
than 1, so that a record is never longer than 1."""
Bound = Annotated[float, Field(ge=-1e6, le=1e6)]


class ClassSums(GaussianSum):
    """Of the rows to train on, as the recipe encodes them: how many have each label; for each label the sum of their numbers;
    and for all labels together the sum of the products of two of a row's numbers.

    A number is cut to the bounds, which are public, and measured from their middle, so that a row's numbers have a length of
    1 at most. Sums are in units of `COUNT`, `PLACE` and `SPREAD`.
    """

    word: ClassVar[str] = "class_sums"
    in_words: ClassVar[str] = "sums of encoded rows by label"
    rows: ClassVar[Rows] = "train"
    kind: Literal["class_sums"] = "class_sums"
    labels: Annotated[int, Field(ge=2, le=100)]
    features: Annotated[int, Field(ge=1, le=200)]
    """Numbers of an encoded row, all its arrays side by side."""
    low: Bound
    high: Bound

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if not self.low < self.high:
            raise ValueError("low must be below high")
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """(counts, then sums by label, then products)."""
        return (self.labels + self.labels * self.features + self.features * (self.features + 1) // 2,)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """As `NoisedSum`."""
        upper = zip(*np.triu_indices(self.features), strict=True)
        return (Axis("sum of", (*(f"label {label}" for label in range(self.labels)),
                                *(f"x{place} of {label}" for label in range(self.labels) for place in range(self.features)),
                                *(f"x{one} · x{other}" for one, other in upper))),)

    @property
    def _half(self) -> float:
        return (self.high - self.low) / 2 * math.sqrt(self.features)

    def standard(self, table_NF: Float64) -> Float64:
        """From the middle of the bounds, in units in which a row is never longer than 1."""
        found: Float64 = (np.clip(table_NF, self.low, self.high) - (self.low + self.high) / 2) / self._half
        return found

    def back(self, standard_NF: Float64) -> Float64:
        """What `standard` was computed from, within the bounds."""
        found: Float64 = np.clip(standard_NF * self._half + (self.low + self.high) / 2, self.low, self.high)
        return found

    def parts(self, table: Float64) -> tuple[Float64, Float64, Float64]:
        """Counts, (K,), sums, (K, F), and products, (F, F), of a release's table, in records' own units."""
        count_K, rest = table[:self.labels] / COUNT, table[self.labels:]
        sum_KF = rest[:self.labels * self.features].reshape(self.labels, self.features) / PLACE
        product_FF, upper = np.zeros((self.features, self.features)), np.triu_indices(self.features)
        product_FF[upper] = rest[self.labels * self.features:] / _twice(self.features) / SPREAD
        return count_K, sum_KF, product_FF + np.triu(product_FF, 1).T

    def possible(self, table: Float64, leeway: float) -> bool:
        """As `NoisedSum`: no sum is farther from 0 than the records are many."""
        counts = table[:self.labels] / COUNT
        most = max(float(counts.sum()), 0.0) + leeway * (1 + self.labels / COUNT)
        return bool((counts >= -leeway / COUNT).all() and (np.abs(table[self.labels:]) <= most).all())

    def contributions(self, evidence: Evidence) -> Iterable[RowsPart]:
        """As `GaussianSum`."""
        table_NF, label_N = evidence.encoded()
        if table_NF.shape[1] != self.features:
            raise ContractError(f"the recipe makes {table_NF.shape[1]} numbers of a row, and the question is about rows of "
                                f"{self.features}")
        if len(label_N) and not 0 <= label_N.min() <= label_N.max() < self.labels:
            raise ContractError(f"the recipe has labels beyond the {self.labels} that the question is about")
        one, other = np.triu_indices(self.features)
        own_F, ahead = np.arange(self.features), self.labels * (1 + self.features)
        for block in in_blocks(len(table_NF), 1 + self.features + len(one)):
            x_NF, label_N1 = self.standard(table_NF[block]), label_N[block][:, None]
            x_NF = np.where(np.isfinite(x_NF), x_NF, 0.0)
            value_NK = np.concatenate([np.full((len(x_NF), 1), COUNT), PLACE * x_NF,
                                       SPREAD * _twice(self.features) * x_NF[:, one] * x_NF[:, other]], axis=1)
            place_NK = np.concatenate([label_N1, self.labels + label_N1 * self.features + own_F,
                                       np.broadcast_to(ahead + np.arange(len(one)), (len(x_NF), len(one)))], axis=1)
            yield RowsPart(value_NK, place_NK)


def _twice(features: int) -> Float64:
    """The square root of how often a product stands in the square of all products: once, or twice."""
    one, other = np.triu_indices(features)
    return np.where(one == other, 1.0, math.sqrt(2))
