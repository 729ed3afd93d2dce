"""An estimate and its interval, from noised sums and the law of their noise.

The interval is about the noise alone: in 95 of 100 cases the number that the same records would give without noise lies in
it. It says nothing about other records that might have been drawn.

M estimates, R repetitions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fedround.statistics.base import Float64

WIDTH = 1.96
"""The half-width of the interval in standard deviations."""

_REPEATS = 400


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


Estimator = Callable[[Float64], Float64]
"""From sums, in the last axes, to M estimates in the last axis; what is before stays."""


def estimated(sums: Float64, noise_std: float, of: Estimator) -> tuple[Float64, Float64]:
    """The estimates, (M,), and how far each may be off, (M,): from noise of the known law, drawn again and again around the
    noised sums. Deterministic.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        value_M = of(sums)
        if noise_std == 0:
            return value_M, np.zeros_like(value_M)
        draws = np.random.default_rng(0).normal(0.0, noise_std, (_REPEATS, *sums.shape))
        told_RM = of(sums + draws)
    low_M, high_M = np.nanquantile(np.where(np.isfinite(told_RM), told_RM, np.nan), [0.025, 0.975], axis=0)
    return value_M, (high_M - low_M) / 2


def listed(words: list[tuple[str, ...]], value_M: Float64, half_M: Float64, low: float = -np.inf,
           high: float = np.inf) -> tuple[Estimate, ...]:
    """Estimates with these words. low, high: between which the number lies, whatever the noise says."""
    told = zip(words, value_M.ravel().tolist(), half_M.ravel().tolist(), strict=True)
    return tuple(Estimate(said, _within(value, low, high), _within(value - half, low, high), _within(value + half, low, high))
                 for said, value, half in told)


def _within(value: float, low: float, high: float) -> float:
    return float(np.clip(value, low, high)) if np.isfinite(value) else float("nan")
