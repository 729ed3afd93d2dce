"""What one Newton step of a generalised linear model needs: the gradient and the Hessian at given coefficients.

N records, F factors (1 and the columns).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from fedround.spoken import how_many
from fedround.statistics.base import Evidence, Float64
from fedround.statistics.factors import Factor, check_factors
from fedround.statistics.grouped import GroupedSum
from fedround.statistics.products import pairs_of, products
from fedround.statistics.sums import RowsPart, in_blocks

Coefficient = Annotated[float, Field(ge=-100, le=100)]
_STEEPEST = 30.0                # of a linear predictor: beyond, its exponential says nothing more


class GlmSums(GroupedSum):
    """Gradient and Hessian of the log-likelihood at `at`, over records with a number in every column.

    family: "logistic": the outcome is 0 or 1 (a number is cut into that range), "poisson": a number from 0 to the outcome's
    upper bound, with the logarithm as link. at: the coefficients of 1 and of the columns in standard form
    (`fedround.statistics.factors`). Groups are not supported: ask with `where`.
    """

    word: ClassVar[str] = "models"
    in_words: ClassVar[str] = "sums for a step of a regression"
    kind: Literal["glm_sums"] = "glm_sums"
    family: Literal["logistic", "poisson"]
    of: Annotated[tuple[Factor, ...], Field(min_length=1, max_length=50)]
    outcome: Factor
    at: Annotated[tuple[Coefficient, ...], Field(min_length=2, max_length=51)]

    @model_validator(mode="after")
    def _check_coefficients(self) -> Self:
        if len(self.at) != len(self.of) + 1:
            raise ValueError(f"{how_many(len(self.of), 'column', 'has', 'have')} {len(self.of) + 1} coefficients, with the "
                             "intercept")
        if self.by:
            raise ValueError("a model has no groups: ask for one group at a time, with a condition")
        check_factors([self.outcome.column], self.of)
        if self.outcome.low != 0 or (self.family == "logistic" and self.outcome.high != 1):
            raise ValueError("the outcome begins at 0, and of a logistic model it ends at 1")
        return self

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Which places of the Hessian travel."""
        return pairs_of(len(self.of) + 1)

    @property
    def labels(self) -> tuple[str, ...]:
        """As `GroupedSum`."""
        names = ["1", *(one.name for one in self.of)]
        return (*(f"gradient of {name}" for name in names),
                *(f"curvature of {names[one]}, {names[other]}" for one, other in self.pairs))

    @property
    def of_columns(self) -> tuple[str, ...]:
        """As `GroupedSum`."""
        return tuple(dict.fromkeys(one.column for one in (*self.of, self.outcome)))

    @property
    def scale(self) -> float:
        """As `NoisedSum`. Factors are in [-1, 1]. Logistic: the residual is in [-1, 1], the weight at most 1/4. Poisson: both
        are at most the outcome's bound, since a mean beyond it is cut to it.
        """
        factors = len(self.of) + 1
        if self.family == "logistic":
            return math.sqrt(factors + len(self.pairs) / 16)
        return self.outcome.high * math.sqrt(factors + len(self.pairs))

    def possible(self, table: Float64, leeway: float) -> bool:
        """As `NoisedSum`: the curvature along a column is not negative."""
        diagonal = [len(self.of) + 1 + place for place, (one, other) in enumerate(self.pairs) if one == other]
        return bool((table[diagonal] >= -leeway).all())

    def added(self, evidence: Evidence) -> Iterator[tuple[slice, RowsPart]]:
        """As `GroupedSum`."""
        standard_NC = np.stack([one.standard(evidence) for one in self.of], axis=1)
        outcome_N = self.outcome.middle + self.outcome.half * self.outcome.standard(evidence)
        for block in in_blocks(len(outcome_N), len(self.labels)):
            factor_NF = np.concatenate([np.ones((len(outcome_N[block]), 1)), standard_NC[block]], axis=1)
            there_N1 = ~np.isnan(factor_NF).any(axis=1, keepdims=True) & ~np.isnan(outcome_N[block, None])
            factor_NF, told_N1 = np.where(there_N1, factor_NF, 0.0), np.where(there_N1, outcome_N[block, None], 0.0)
            mean_N1, weight_N1 = self._mean(factor_NF)
            value_NK = np.concatenate([(told_N1 - mean_N1) * factor_NF, weight_N1 * products(factor_NF)], axis=1)
            yield block, RowsPart(np.where(there_N1, value_NK, 0.0))

    def _mean(self, factor_NF: Float64) -> tuple[Float64, Float64]:
        """The expected outcome, and the weight of a record in the Hessian, (N, 1) each."""
        # Added up column by column: what a record gives may not depend on how many records a block has.
        linear_N1 = np.clip(sum(value * factor_NF[:, [place]] for place, value in enumerate(self.at)), -_STEEPEST, _STEEPEST)
        if self.family == "logistic":
            chance_N1: Float64 = 1 / (1 + np.exp(-linear_N1))
            return chance_N1, chance_N1 * (1 - chance_N1)
        mean_N1: Float64 = np.minimum(np.exp(linear_N1), self.outcome.high)
        return mean_N1, mean_N1
