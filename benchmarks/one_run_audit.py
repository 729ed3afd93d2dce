"""Lower bounds on epsilon from one training run with canaries.

Each of m canaries is put among the rows or not, by a coin. From what leaves, the auditor guesses for r of them whether they
were there. Under (epsilon, delta_dp) few such guesses can be right; if many are, epsilon is larger than that (Steinke, Nasr
and Jagielski 2023, arXiv:2305.08846). That holds for any mechanism, and so it is loose: the worst one that has this epsilon
leaks in another way than noise does. If all of the mechanism's trade-off between false alarms and misses is claimed, as it is
for Gaussian noise in steps on all rows, or on samples of them, more can be refuted (Mahloujifar, Melis and Chaudhuri 2025,
arXiv:2410.22235).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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
    """Whatever the mechanism."""
    gaussian_at_least: float = 0.0
    """If it is Gaussian: epsilon of the most private Gaussian mechanism that is not refuted, over all numbers of guesses."""
    sampled_at_least: float = 0.0
    """If it is Gaussian noise in steps on samples of rows: the same, of those with this sampling and this many steps."""


Wrong = Callable[[float], float]
"""How likely, at least, a guess is wrong that is right with this probability: what a trade-off says."""


@dataclass(frozen=True)
class Sampled:
    """Gaussian noise in `steps` steps, each on a Poisson sample of the rows."""

    rate: float
    steps: int


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


def is_possible(mu: float, canaries: int, guesses: int, right: int, significance: float) -> bool:
    """Whether a mechanism that is no easier to tell apart than N(0, 1) and N(mu, 1) makes `right` or more of `guesses` right
    with a probability of at least `significance`. It is `is_explained` by that trade-off.
    """
    from scipy.special import ndtr, ndtri  # type: ignore[import-untyped]

    return is_explained(lambda chance: float(ndtr(ndtri(chance) - mu)), canaries, guesses, right, significance)


def is_explained(wrong: Wrong, canaries: int, guesses: int, right: int, significance: float) -> bool:
    """Whether a mechanism with this trade-off makes `right` or more of `guesses` right with a probability of at least
    `significance`.

    Theorem of the paper in short: let r be the chance that the i-th guess is right and i or more others are, and h that it is
    wrong. Going down from `right`, each h is at least what the trade-off makes of the r above it, and r grows with it. If
    more than the share of canaries that was guessed comes out, no such mechanism is there.
    """
    share = guesses / canaries
    r, h = significance * share * right / guesses, significance * share * (guesses - right) / guesses
    for i in range(right - 1, -1, -1):
        higher = max(h, wrong(r))
        r, h = r + i / (guesses - i) * (higher - h), higher
        if r + h > share:
            return False
    return True


def gaussian_bound(delta_dp: float, canaries: int, guesses: int, right: int, significance: float) -> float:
    """Epsilon of the largest mu that is refuted; 0 if none is."""
    low, high = 0.0, 20.0
    if is_possible(low, canaries, guesses, right, significance):
        return 0.0
    while high - low > 1e-3:
        mu = (low + high) / 2
        low, high = (low, mu) if is_possible(mu, canaries, guesses, right, significance) else (mu, high)
    return epsilon_of_gaussian(low, delta_dp)


def epsilon_of_gaussian(mu: float, delta_dp: float) -> float:
    """Of the Gaussian mechanism with sensitivity mu and noise 1 (Balle and Wang 2018, arXiv:1805.06530)."""
    from scipy.stats import norm

    low, high = 0.0, LARGEST_EPSILON
    while mu > 0 and high - low > 1e-4:
        epsilon = (low + high) / 2
        delta = norm.cdf(mu / 2 - epsilon / mu) - np.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
        low, high = (epsilon, high) if delta > delta_dp else (low, epsilon)
    return low


@functools.lru_cache(maxsize=64)
def trade_off(noise: float, how: Sampled) -> Wrong:
    """Of Gaussian noise of this multiplier, from its privacy profile: f(a) = max(1 - delta - e^eps a, e^-eps (1 - delta - a))
    over all eps (Dong, Roth and Su 2022, arXiv:1905.02383, proposition 2.12).
    """
    from dp_accounting.pld import privacy_loss_distribution

    step = privacy_loss_distribution.from_gaussian_mechanism(
        noise, sampling_prob=how.rate, value_discretization_interval=2e-3)
    eps_E = np.linspace(0, 15, 301)         # fewer explain more, and refute less
    there_E = 1 - np.asarray(step.self_compose(how.steps).get_delta_for_epsilon(eps_E))
    up_E, down_E = np.exp(eps_E), np.exp(-eps_E)

    def wrong(chance: float) -> float:
        misses = 1 - chance
        return max(0.0, float((there_E - up_E * misses).max()), float((down_E * (there_E - misses)).max()))

    return wrong


def sampled_bound(delta_dp: float, how: Sampled, cases: Sequence[tuple[int, int, int, float]]) -> float:
    """Epsilon of the least noise, with this sampling, that all of the cases refute together; 0 if they refute none.

    cases: canaries, guesses, right ones, significance.
    """
    from dp_accounting.pld import privacy_loss_distribution

    def refuted(noise: float) -> bool:
        return any(not is_explained(trade_off(noise, how), *case) for case in cases)

    low, high = math.log(0.3), math.log(60.0)
    if not refuted(math.exp(high)):
        return 0.0
    while high - low > 0.02:
        middle = (low + high) / 2
        low, high = (low, middle) if refuted(math.exp(middle)) else (middle, high)
    least = privacy_loss_distribution.from_gaussian_mechanism(math.exp(high), sampling_prob=how.rate)
    return float(least.self_compose(how.steps).get_epsilon_for_delta(delta_dp))


def audit(score_M: npt.NDArray[np.float64], present_M: npt.NDArray[np.bool_], delta_dp: float, confidence: float,
          shares: Sequence[float] = (0.02, 0.05, 0.1, 0.2, 0.4), sampled: Sampled | None = None) -> Audit:
    """The best lower bounds over several numbers of guesses, at the given confidence for all of them together (Bonferroni).

    score_M: how much each canary seems to be there. present_M: whether it was. shares: of the canaries, how many are guessed
    as present and as many as absent; nothing is said about the others. sampled: which rows steps were on, where it is known.
    """
    order_M = np.argsort(-score_M, kind="stable")
    found, cases = [], []
    for share in shares:
        half = max(1, round(share * len(score_M)))
        right = int(present_M[order_M[:half]].sum() + (~present_M[order_M[-half:]]).sum())
        case = delta_dp, len(score_M), 2 * half, right, (1 - confidence) / len(shares)
        cases.append(case[1:])
        found.append(Audit(len(score_M), 2 * half, right, lower_bound(*case), gaussian_bound(*case)))
    best = max(found, key=lambda one: one.epsilon_at_least)
    return replace(best, gaussian_at_least=max(one.gaussian_at_least for one in found),
                   sampled_at_least=0.0 if sampled is None else sampled_bound(delta_dp, sampled, cases))
