"""An estimate and its interval, from noised sums and the law of their noise.

The interval is about the noise alone: in 95 of 100 cases the number that the same records would give without noise lies in
it. It says nothing about other records that might have been drawn.

M estimates, R repetitions.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fedround.statistics.base import Float64

WIDTH = 1.96
"""The half-width of the interval in standard deviations."""

TERM = "term"
"""The first name of a table of coefficients."""

_REPEATS = 400
_MOST_LOST = 0.025              # of the repetitions, that may give no number: the interval of the records then holds none


@dataclass(frozen=True)
class Estimate:
    """One number of an answer."""

    words: tuple[str, ...]
    """What it is about, a word for each column of the table before the number."""
    value: float
    """NaN: the noise leaves nothing to say."""
    low: float
    high: float
    """Of the interval; equal to the value if nothing was noised."""


@dataclass(frozen=True)
class Table:
    """One table of an answer."""

    title: str
    head: tuple[str, ...]
    """Names of the words, and last of the number."""
    estimates: tuple[Estimate, ...]
    plot: Literal["bars", "steps", "none"] = "none"
    """How it is drawn: bars by the last word; or a curve over it, a line for each of the words before."""
    notes: tuple[str, ...] = field(default=())


Bound = float | Float64
Estimator = Callable[[Float64], Float64]
"""From sums, in the last axes, to M estimates in the last axis; what is before stays."""


def estimated(sums: Float64, noise_std: float, of: Estimator) -> tuple[Float64, Float64]:
    """The estimates, (M,), and how far each may be off, (M,): from noise of the known law, drawn again and again around the
    noised sums; NaN: the noise leaves nothing to say. Deterministic.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        value_M = of(sums)
        if noise_std == 0:
            return value_M, np.zeros_like(value_M)
        draws = np.random.default_rng(0).normal(0.0, noise_std, (_REPEATS, *sums.shape))
        told_RM = of(sums + draws)
    known_RM = np.where(np.isfinite(told_RM), told_RM, np.nan)
    known_RM[:, np.isnan(known_RM).mean(axis=0) > _MOST_LOST] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)     # a column without any number
        low_M, high_M = np.nanquantile(known_RM, [0.025, 0.975], axis=0)
    half_M = (high_M - low_M) / 2
    return value_M, np.where(half_M > 0, half_M, np.nan)    # what no noise moves was cut to a bound: it says nothing


def listed(words: list[tuple[str, ...]], value_M: Float64, half_M: Float64, low: Bound = -np.inf,
           high: Bound = np.inf) -> tuple[Estimate, ...]:
    """Estimates with these words. low, high: between which the numbers lie, whatever the noise says."""
    value = np.where(np.isnan(half_M), np.nan, value_M)
    told = (np.clip(one, low, high).ravel().tolist() for one in (value, value - half_M, value + half_M))
    return tuple(Estimate(*one) for one in zip(words, *told, strict=True))


def rooted(one: Estimate) -> Estimate:
    """The square root of an estimate, end by end: a root of what noise made negative is 0, and the interval stays honest. If
    noise made all of it negative, there is nothing to say.
    """
    if one.high < 0 or (one.high == 0 and one.low < 0):
        return Estimate(one.words, math.nan, math.nan, math.nan)
    return Estimate(one.words, *(math.sqrt(max(end, 0.0)) if math.isfinite(end) else math.nan
                                 for end in (one.value, one.low, one.high)))
