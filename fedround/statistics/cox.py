"""What one Newton step of Cox's model needs, over ranges of time: only without privacy.

A record is in every risk set up to its own time, so its contribution grows with the number of ranges, and with the
exponential of its predictor. Under privacy ask for survival curves, hazards or a logistic model instead.

N records, F columns, K ranges of time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from fedround.spoken import how_many
from fedround.statistics.base import Axis, Evidence
from fedround.statistics.factors import Factor, check_factors
from fedround.statistics.glm import Coefficient
from fedround.statistics.grouped import GroupedSum
from fedround.statistics.histogram import Ranges
from fedround.statistics.levels import Levels
from fedround.statistics.products import pairs_of, products
from fedround.statistics.sums import RowsPart, in_blocks


class CoxSums(GroupedSum):
    """For each range of `time`: events, sums of their columns, and the sums of h, x h and x x' h over all who were at risk
    when it began, with h = exp(x · at) (Breslow's handling of ties). x: the columns in standard form.
    """

    word: ClassVar[str] = "cox"
    in_words: ClassVar[str] = "sums over risk sets"
    kind: Literal["cox_sums"] = "cox_sums"
    noise_std: Annotated[float, Field(ge=0, le=0)] = 0.0
    of: Annotated[tuple[Factor, ...], Field(min_length=1, max_length=20)]
    time: Ranges
    event: Levels
    """What an event is: one of these values."""
    at: Annotated[tuple[Coefficient, ...], Field(min_length=1, max_length=20)]

    @model_validator(mode="after")
    def _check_coefficients(self) -> Self:
        if len(self.at) != len(self.of):
            raise ValueError(f"{how_many(len(self.of), 'column', 'has', 'have')} {how_many(len(self.of), 'coefficient')}")
        check_factors([self.time.column, self.event.column], self.of)
        if self.by:
            raise ValueError("a model has no groups: ask for one group at a time, with a condition")
        if sum(map(abs, self.at)) > 30:
            raise ValueError("coefficients so large that exponentials say nothing: the model has diverged")
        return self

    @property
    def ranges(self) -> tuple[str, ...]:
        """Of time, between the first and the last edge."""
        return self.time.labels[1:-2]

    @property
    def width(self) -> int:
        """Numbers of one range of time."""
        return 2 + 2 * len(self.of) + len(pairs_of(len(self.of)))

    @property
    def labels(self) -> tuple[str, ...]:
        """As `GroupedSum`."""
        return tuple(f"{time}: {place}" for time in self.ranges for place in range(self.width))

    @property
    def axes(self) -> tuple[Axis, ...]:
        """As `NoisedSum`."""
        return (Axis("sum of", self.labels),)

    @property
    def of_columns(self) -> tuple[str, ...]:
        """As `GroupedSum`."""
        return tuple(dict.fromkeys(one.column for one in (*self.of, self.time, self.event)))

    @property
    def scale(self) -> float:
        """As `NoisedSum`: here only the unit in which sums are kept exactly."""
        return math.exp(sum(map(abs, self.at))) * math.sqrt(len(self.labels))

    def added(self, evidence: Evidence) -> Iterator[tuple[slice, RowsPart]]:
        """As `GroupedSum`."""
        standard_NF = np.stack([one.standard(evidence) for one in self.of], axis=1)
        time_N = self.time.group(evidence.column(self.time.column)) - 1      # -1: before the first edge
        event_N = self.event.group(evidence.column(self.event.column)) < len(self.event.values)
        places_K = np.arange(len(self.ranges))
        for block in in_blocks(len(time_N), len(self.labels)):
            x_NF = np.where(np.isnan(standard_NF[block]), 0.0, standard_NF[block])
            there_N = ~np.isnan(standard_NF[block]).any(axis=1) & (time_N[block] >= 0) & (time_N[block] <= len(self.ranges))
            hazard_N1 = np.exp(sum(value * x_NF[:, [place]] for place, value in enumerate(self.at)))
            one_N1 = np.ones_like(hazard_N1)
            of_event_NE = np.concatenate([one_N1, x_NF], axis=1)
            of_risk_NR = hazard_N1 * np.concatenate([one_N1, x_NF, products(x_NF)], axis=1)
            here_NK = (time_N[block, None] == places_K) & (event_N[block] & there_N)[:, None]
            risk_NK = (time_N[block, None] >= places_K) & there_N[:, None]
            value_NKW = np.concatenate([here_NK[:, :, None] * of_event_NE[:, None],
                                        risk_NK[:, :, None] * of_risk_NR[:, None]], axis=2)
            yield block, RowsPart(value_NKW.reshape(len(x_NF), -1))
