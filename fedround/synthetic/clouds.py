"""Encoded rows that nobody has: each label a cloud around its own middle, drawn from one noised sum over all rows.

N rows, F numbers of an encoded row, K labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from fedround.errors import ContractError
from fedround.simplex import onto_simplex
from fedround.statistics import ClassSums, Release, Statistic
from fedround.statistics.base import Float64
from fedround.statistics.class_sums import COUNT, PLACE, SPREAD, Bound
from fedround.values import Value

_DIGITS = 4                     # of a drawn number: two processors' eigenvalues differ far behind them
_LEAST = 1e-9


class Clouds(Value):
    """What is asked for, and what is drawn: rows as a recipe encodes them, all arrays side by side, each with a label.

    For recipes of labels (`Classify`) whose rows are up to 200 numbers between public bounds: small images, say.
    """

    labels: Annotated[int, Field(ge=2, le=100)]
    """How many labels the recipe has."""
    features: Annotated[int, Field(ge=1, le=200)]
    """Numbers of an encoded row."""
    low: Bound
    high: Bound
    """What each number lies between; beyond, it is cut."""

    @model_validator(mode="after")
    def _check(self) -> Clouds:
        self.statistics(0.0)
        return self

    def statistics(self, noise_std: float) -> tuple[Statistic, ...]:
        """What sites are asked for: one sum."""
        return (ClassSums(labels=self.labels, features=self.features, low=self.low, high=self.high, noise_std=noise_std),)

    @property
    def width(self) -> int:
        """Columns of the rows that are drawn: the numbers, and the label."""
        return self.features + 1


@dataclass(frozen=True)
class Cloud:
    """Shares of the labels, (K,), their middles, (K, F), and a factor of what all rows' distances from them have in common,
    (F, F): in the units of `ClassSums.standard`.
    """

    asked: ClassSums
    share_K: Float64
    middle_KF: Float64
    factor_FF: Float64
    directions: int
    """In how many directions rows spread by more than noise alone would show."""

    def sample(self, count: int, draw: np.random.Generator) -> pd.DataFrame:
        """So many rows: "x0", "x1", … and "label"."""
        label_N = np.minimum(np.searchsorted(self.share_K.cumsum(), draw.random(count), side="right"), len(self.share_K) - 1)
        around_NF = draw.standard_normal((count, self.factor_FF.shape[0])) @ self.factor_FF.T
        row_NF = self.asked.back(self.middle_KF[label_N] + around_NF).round(_DIGITS)
        made = pd.DataFrame(row_NF, columns=[f"x{place}" for place in range(row_NF.shape[1])])
        return made.assign(label=label_N)


def fitted_clouds(blueprint: Clouds, totals: Sequence[Release]) -> Cloud:
    """The clouds of what all sites released together for `blueprint.statistics`.

    Labels that hardly any row has are drawn hardly ever. Of the directions in which rows spread around their label's middle,
    those are kept that stand out from the noise (whose largest eigenvalue is that of a random symmetric matrix: Wigner 1955);
    what is left of the spread is the same in all others. It reads nothing but released numbers. Raises ContractError if they
    say that there are no records.
    """
    (told,), asked = totals, ClassSums.model_validate(totals[0].statistic.model_dump())
    count_K, sum_KF, product_FF = asked.parts(told.table)
    records, noise = float(count_K.sum()), told.noise_std
    if records < 1:
        raise ContractError("the noised sums say that there are no records, so no row can be made of them: ask for less "
                            "noise (--noise), or more sites")
    many_K = np.maximum(count_K, max(1.0, noise / COUNT))
    longest = np.abs(asked.standard(np.array([[asked.high] * asked.features]))).max()
    middle_KF = np.clip(sum_KF / many_K[:, None], -longest, longest)
    share_K = onto_simplex(count_K / records, np.ones(1), 0)
    by_noise = float((share_K * (noise / PLACE / many_K) ** 2).sum())       # in the square of each middle
    spread_FF = product_FF / records - (share_K[:, None] * middle_KF).T @ middle_KF + by_noise * np.eye(asked.features)
    size_F, direction_FF = np.linalg.eigh(spread_FF)
    stands_out_F = size_F > max(noise / SPREAD / records * np.sqrt(2 * asked.features), _LEAST)
    others = int((~stands_out_F).sum())
    left = max(float(np.trace(spread_FF) - size_F[stands_out_F].sum()), 0.0) / max(others, 1)
    kept_F = np.where(stands_out_F, size_F, left) + _LEAST
    # The square root is one matrix, whichever eigenvectors a processor finds.
    factor_FF = (direction_FF * np.sqrt(kept_F)) @ direction_FF.T
    return Cloud(asked, share_K, middle_KF, factor_FF, int(stands_out_F.sum()))
