"""A lower bound on epsilon from one training run (Steinke, Nasr and Jagielski 2023, arXiv:2305.08846).

Each of m canaries is put among the rows or not, by a coin. From what leaves, the auditor guesses for r of them whether
they were there. Under (epsilon, delta_dp) few such guesses can be right; if many are, epsilon is larger than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LARGEST_EPSILON = 60.0          # above it e^-epsilon is nothing in double precision, and no audit says so much


@dataclass(frozen=True)
class Audit:
    """What one run showed."""

    canaries: int
    guesses: int
    right: int
    epsilon_at_least: float


def p_value(epsilon: float, delta_dp: float, canaries: int, guesses: int, right: int) -> float:
    """At most this likely under (epsilon, delta_dp): `right` or more of `guesses` are right (theorem 5.2, appendix D).

    P[W >= v] <= P[W' >= v] + 2 m delta_dp max_i P[v > W' >= v - i] / i, where W' is binomial, with `guesses` draws of
    chance e^epsilon / (1 + e^epsilon) each.
    """
    from scipy.stats import binom  # type: ignore[import-untyped]

    chance = 1 / (1 + np.exp(-epsilon))
    below_v = binom.pmf(np.arange(right - 1, -1, -1), guesses, chance)         # W' = v-1, v-2, …, 0
    steepest = float(np.max(np.cumsum(below_v) / np.arange(1, right + 1), initial=0.0))
    return min(1.0, float(binom.sf(right - 1, guesses, chance)) + 2 * canaries * delta_dp * steepest)


def lower_bound(delta_dp: float, canaries: int, guesses: int, right: int, significance: float) -> float:
    """The largest epsilon that is refuted: every smaller one gives a p-value of at most `significance`. 0 if none is."""
    low, high = 0.0, LARGEST_EPSILON
    if p_value(low, delta_dp, canaries, guesses, right) > significance:
        return 0.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        refuted = p_value(middle, delta_dp, canaries, guesses, right) <= significance
        low, high = (middle, high) if refuted else (low, middle)
    return low


def audit(score_M: npt.NDArray[np.float64], present_M: npt.NDArray[np.bool_], delta_dp: float, confidence: float,
          shares: Sequence[float] = (0.02, 0.05, 0.1, 0.2, 0.4)) -> Audit:
    """The best lower bound over several numbers of guesses, at the given confidence for all of them together (Bonferroni).

    score_M: how much each canary seems to be there. present_M: whether it was. shares: of the canaries, how many are guessed
    as present and as many as absent; nothing is said about the others.
    """
    order_M = np.argsort(-score_M, kind="stable")
    found = []
    for share in shares:
        half = max(1, round(share * len(score_M)))
        right = int(present_M[order_M[:half]].sum() + (~present_M[order_M[-half:]]).sum())
        bound = lower_bound(delta_dp, len(score_M), 2 * half, right, (1 - confidence) / len(shares))
        found.append(Audit(len(score_M), 2 * half, right, bound))
    return max(found, key=lambda one: one.epsilon_at_least)
