"""A promise of privacy in other words: epsilon at several deltas, the nearest Gaussian, a trade-off curve."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fedround.privacy.calibration import mu_squared

DELTAS = (1e-4, 1e-5, 1e-6, 1e-8)
"""The values of delta_dp at which epsilon is reported."""

WRONGLY = (0.001, 0.01, 0.05, 0.1)
"""False positive rates of an attacker: how often an absent record is declared present."""

_FOR_THE_CURVE = (*DELTAS, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.2, 0.4)


@dataclass(frozen=True)
class Profile:
    """All numbers are computed from the accountant's upper bounds, so they are upper bounds, too."""

    epsilons: dict[float, float]
    """By delta_dp."""
    mu: float
    """The mean of the Gaussian mechanism that costs as much at the promise's delta_dp."""
    rightly: dict[float, float]
    """The trade-off curve of f-DP (Dong, Roth and Su 2022): for each false positive rate, the largest true positive rate of
    any attacker, whatever else the attacker knows."""


def profile(epsilon_at: Callable[[float], float], delta_dp: float) -> Profile:
    """The profile of epsilon_at, which gives epsilon as a function of delta_dp."""
    known = {delta: epsilon_at(delta) for delta in (*_FOR_THE_CURVE, delta_dp)}
    return Profile({delta: known[delta] for delta in sorted({*DELTAS, delta_dp}, reverse=True)},
                   _nearest(known[delta_dp], delta_dp),
                   {wrongly: min(_power(eps, delta, wrongly) for delta, eps in known.items()) for wrongly in WRONGLY})


def _nearest(eps: float, delta_dp: float) -> float:
    return math.inf if math.isinf(eps) else 0.0 if eps == 0 else math.sqrt(mu_squared(eps, delta_dp))


def _power(eps: float, delta: float, wrongly: float) -> float:
    """The largest true positive rate of a test that (eps, delta) bounds (Kairouz, Oh and Viswanath 2015, theorem 2.1)."""
    if eps > 700:
        return 1.0
    return min(1.0, delta + math.exp(eps) * wrongly, 1 - math.exp(-eps) * (1 - delta - wrongly))


def upward(value: float, digits: int) -> str:
    """A number with so many digits after the point, never less than it is."""
    if not math.isfinite(value):
        return str(value)
    return f"{math.ceil(value * 10 ** digits - 1e-9) / 10 ** digits:.{digits}f}"


def in_words(told: Profile) -> list[str]:
    """Two lines: epsilon at several deltas, and the curve."""
    several = "  ".join(f"δ {delta:g}: {upward(eps, 3)}" for delta, eps in told.epsilons.items())
    curve = ", ".join(f"{wrongly:.1%} → {upward(100 * power, 1)}%" for wrongly, power in told.rightly.items())
    return [f"ε at {several}  (Gaussian μ {upward(told.mu, 3)})", f"accused wrongly → rightly, at most: {curve}"]
