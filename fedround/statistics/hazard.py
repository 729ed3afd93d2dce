"""What one Newton step of a discrete-time hazard model needs: Cox's question in a form whose sums have a bound.

Time is cut at public edges. A record is at risk in every range up to its own, and has the event in that one, or not; the
chance of it is a level of the range and a sum over columns. Over all its ranges a record adds little where hazards are small,
and never more than `scale`, which follows from the coefficients of the question alone.

N records, F columns, K ranges of time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from fedround.spoken import how_many
from fedround.statistics.base import Evidence, Float64, Int64
from fedround.statistics.factors import Factor, check_factors
from fedround.statistics.glm import Coefficient
from fedround.statistics.grouped import GroupedSum
from fedround.statistics.histogram import Ranges
from fedround.statistics.levels import Levels
from fedround.statistics.products import pairs_of, products
from fedround.statistics.sums import RowsPart, in_blocks

_STEEPEST = 3.0                 # of a linear predictor: a hazard of 1 - 2e-9 (cloglog) or 0.95 (logit)
_FLATTEST = -30.0
_PEAK = {"cloglog": math.log(1.5936242600400401), "logit": 0.0}     # where a record's weight in the Hessian is largest


class HazardSums(GroupedSum):
    """Gradient and Fisher information of the log-likelihood at `at`, over records with a time and a number in every column.

    link: "cloglog": coefficients are logarithms of hazard ratios (proportional hazards, as Cox's, for times that are known by
    range: Prentice & Gloeckler 1978, doi 10.2307/2529588); "logit": of odds ratios. at: the levels of the ranges, then the
    coefficients of the columns in standard form. Whoever is censored in a range is at risk in it; who is below the first edge
    is left out, and who is there at the last one was at risk in every range.
    """

    word: ClassVar[str] = "models"
    in_words: ClassVar[str] = "sums for a step of a regression"
    kind: Literal["hazard_sums"] = "hazard_sums"
    link: Literal["cloglog", "logit"] = "cloglog"
    of: Annotated[tuple[Factor, ...], Field(min_length=1, max_length=20)]
    time: Ranges
    event: Levels
    """What an event is: one of these values."""
    at: Annotated[tuple[Coefficient, ...], Field(min_length=1, max_length=120)]

    @model_validator(mode="after")
    def _check_coefficients(self) -> Self:
        if not 1 <= self.spans <= 100:
            raise ValueError("time needs at least two edges, and at most 101")
        if len(self.at) != self.spans + len(self.of):
            raise ValueError(f"{how_many(self.spans, 'range')} of time and {how_many(len(self.of), 'column')} have "
                             f"{self.spans + len(self.of)} coefficients")
        check_factors([self.time.column, self.event.column], self.of)
        if self.by:
            raise ValueError("a model has no groups: ask for one group at a time, with a condition")
        return self

    @property
    def spans(self) -> int:
        """Ranges of time between the first and the last edge, K."""
        return len(self.time.edges) - 1

    @property
    def ranges(self) -> tuple[str, ...]:
        """In words."""
        return self.time.labels[1:-2]

    @property
    def labels(self) -> tuple[str, ...]:
        """As `GroupedSum`."""
        names = [one.name for one in self.of]
        return (*(f"gradient of {name}" for name in (*self.ranges, *names)),
                *(f"curvature of {time}, {name}" for time in self.ranges for name in ("1", *names)),
                *(f"curvature of {names[one]}, {names[other]}" for one, other in pairs_of(len(names))))

    @property
    def of_columns(self) -> tuple[str, ...]:
        """As `GroupedSum`."""
        return tuple(dict.fromkeys(one.column for one in (*self.of, self.time, self.event)))

    @property
    def scale(self) -> float:
        """As `NoisedSum`: of the worst record, whatever its columns and however long it was at risk; with noise no longer
        than `heaviest`.
        """
        least_K, most_K = self._reach()
        pull_K = np.exp(most_K) if self.link == "cloglog" else 1 / (1 + np.exp(-most_K))
        weight_K = self._weight(np.clip(_PEAK[self.link], least_K, most_K))
        columns = len(self.of)
        of_levels = float(np.square(pull_K[:-1]).sum() + max(1.0, pull_K[-1] ** 2))
        of_columns = columns * max(1.0, float(pull_K.sum())) ** 2
        curvature = ((1 + columns) * float(np.square(weight_K).sum())
                     + len(pairs_of(columns)) * float(weight_K.sum()) ** 2)
        worst = math.sqrt(of_levels + of_columns + curvature)
        return worst if self.noise_std == 0 else min(worst, self.heaviest)

    @property
    def heaviest(self) -> float:
        """The most that a single event can add to a gradient. Under noise a record that would add more, since it was at high
        risk and nothing happened, is cut to this length, gradient and information alike: it weighs less than 1. Without it,
        noise would be as loud as the worst record that coefficients allow, though there is none like it.
        """
        return math.sqrt(1 + len(self.of))

    def possible(self, table: Float64, leeway: float) -> bool:
        """As `NoisedSum`: the information about a level or a column is not negative."""
        levels = self.spans + len(self.of) + np.arange(self.spans) * (1 + len(self.of))
        columns = [len(self.labels) - len(pairs_of(len(self.of))) + place
                   for place, (one, other) in enumerate(pairs_of(len(self.of))) if one == other]
        return bool((table[[*levels, *columns]] >= -leeway).all())

    def information(self, table: Float64) -> tuple[Float64, Float64]:
        """Gradient and Fisher information, (K + F,) and (K + F, K + F), of the sums."""
        spans, columns = self.spans, len(self.of)
        gradient, of_levels = table[:spans + columns], table[spans + columns:spans + columns + spans * (1 + columns)]
        found = np.zeros((spans + columns, spans + columns))
        of_level_KF = of_levels.reshape(spans, 1 + columns)
        found[np.arange(spans), np.arange(spans)] = of_level_KF[:, 0]
        found[:spans, spans:], found[spans:, :spans] = of_level_KF[:, 1:], of_level_KF[:, 1:].T
        one_P, other_P = np.array(pairs_of(columns)).T + spans
        found[one_P, other_P] = found[other_P, one_P] = table[spans + columns + spans * (1 + columns):]
        return gradient, found

    def added(self, evidence: Evidence) -> Iterator[tuple[slice, RowsPart]]:
        """As `GroupedSum`."""
        standard_NF = np.stack([one.standard(evidence) for one in self.of], axis=1)
        range_N = self.time.group(evidence.column(self.time.column))
        event_N = self.event.group(evidence.column(self.event.column)) < len(self.event.values)
        there_N = ~np.isnan(standard_NF).any(axis=1) & (range_N >= 1) & (range_N <= self.spans + 1)
        standard_NF = np.where(there_N[:, None], standard_NF, 0.0)
        for block in in_blocks(len(range_N), max(len(self.labels), self.spans * len(self.of))):
            yield block, RowsPart(self._added(standard_NF[block], range_N[block], event_N[block], there_N[block]))

    def _added(self, x_NF: Float64, range_N: Int64, event_N: npt.NDArray[np.bool_],
               there_N: npt.NDArray[np.bool_]) -> Float64:
        span_K = np.arange(1, self.spans + 1)
        at_risk_NK = (there_N[:, None] & (range_N[:, None] >= span_K)).astype(np.float64)
        falls_NK = (event_N[:, None] & (range_N[:, None] == span_K)).astype(np.float64)
        # Added up column by column: what a record gives may not depend on how many records a block has.
        risk_N = sum(value * x_NF[:, place] for place, value in enumerate(self.at[self.spans:]))
        linear_NK = np.clip(np.array(self.at[:self.spans]) + np.asarray(risk_N)[:, None], _FLATTEST, _STEEPEST)
        pull_NK = at_risk_NK * self._pull(linear_NK, falls_NK)
        weight_NK = at_risk_NK * self._weight(linear_NK)
        pulled_N1, weighed_N1 = (sum(one_NK[:, [place]] for place in range(self.spans)) for one_NK in (pull_NK, weight_NK))
        one_NF = np.concatenate([np.ones((len(x_NF), 1)), x_NF], axis=1)
        across_NK = (weight_NK[:, :, None] * one_NF[:, None, :]).reshape(len(x_NF), -1)
        return np.concatenate([pull_NK, pulled_N1 * x_NF, across_NK, weighed_N1 * products(x_NF)], axis=1)

    def _reach(self) -> tuple[Float64, Float64]:
        """Between which linear predictors every record lies, (K,) each."""
        level_K, slopes = np.array(self.at[:self.spans]), self.at[self.spans:]
        least = [min(slope * (one.low - one.middle) / one.half, slope * (one.high - one.middle) / one.half)
                 for slope, one in zip(slopes, self.of, strict=True)]
        most = [max(slope * (one.low - one.middle) / one.half, slope * (one.high - one.middle) / one.half)
                for slope, one in zip(slopes, self.of, strict=True)]
        return (np.clip(level_K + math.fsum(least), _FLATTEST, _STEEPEST),
                np.clip(level_K + math.fsum(most), _FLATTEST, _STEEPEST))

    def _pull(self, linear_NK: Float64, falls_NK: Float64) -> Float64:
        """The derivative of the log-likelihood by the linear predictor."""
        if self.link == "logit":
            return falls_NK - 1 / (1 + np.exp(-linear_NK))
        mean_NK = np.exp(linear_NK)
        return np.where(falls_NK > 0, mean_NK / np.expm1(mean_NK), -mean_NK)

    def _weight(self, linear_NK: Float64) -> Float64:
        """The Fisher information about the linear predictor."""
        if self.link == "logit":
            chance_NK = 1 / (1 + np.exp(-linear_NK))
            return np.asarray(chance_NK * (1 - chance_NK))
        mean_NK = np.exp(linear_NK)
        return np.asarray(mean_NK ** 2 / np.expm1(mean_NK))
