"""The smallest noise that keeps a promise, found with the accountant by bisection."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedround.errors import ContractError
from fedround.privacy.accounting import epsilon, gaussian_delta
from fedround.privacy.spec import DpSgd, GaussianCounts, Mechanism, PersonPrivacy, Promise, RecordPrivacy, cap
from fedround.privacy.units import precision_of
from fedround.spoken import how_many

LARGEST_NOISE_MULTIPLIER = 1000.0


def sampling_rate(batch_size: int, rows: int) -> float:
    """The chance of each row to be in a step's batch, so that `batch_size` rows are expected (at most all of them)."""
    if rows < 1:
        raise ContractError("there are no rows to train on; check the site's training file")
    return min(1.0, batch_size / rows)


def calibrate(privacy: RecordPrivacy | PersonPrivacy, sampling_rate: float, steps_per_round: int,
              beside: Sequence[Mechanism]) -> float:
    """The smallest noise multiplier, in thousandths, that keeps a whole campaign of DP-SGD within its budget.

    The campaign is `privacy.rounds` rounds of `steps_per_round` steps, with adaptive clipping the counts of every step, and
    all that the campaign releases `beside` them. "Within" is judged by `epsilon` itself, so a ledger that charges exactly
    this campaign ends at or below `privacy.epsilon`. Deterministic. Raises ContractError if no noise can do it; the message
    says what to change.
    """
    if not 0 < sampling_rate <= 1 or steps_per_round < 1:
        raise ContractError(f"sampling rate {sampling_rate} must be in (0, 1], steps {steps_per_round} at least 1")
    spread = sampling_rate ** 2 * privacy.rounds * steps_per_round

    def training(noise: float) -> Mechanism:
        return DpSgd(noise_multiplier=noise, clip_norm=privacy.clip_norm, sampling_rate=sampling_rate, steps=steps_per_round,
                     count_noise_std=privacy.count_noise_std, rows_per_person=cap(privacy))

    return smallest_noise(privacy, training, beside, lambda mu2: 1 / math.sqrt(math.log1p(mu2 / spread)))


def smallest_noise(privacy: Promise, training: Callable[[float], Mechanism],
                   beside: Sequence[Mechanism], guess: Callable[[float], float], times: int | None = None) -> float:
    """The smallest noise multiplier, in thousandths, with which `rounds` times `training(noise)` and what is released
    `beside` them stay within the budget of `privacy`.

    times: how often a record takes part; None: in every round.
    guess: where to look first, from what the training may spend, as the squared mean of a Gaussian's privacy loss (mu²). It
    decides only how long the search takes.
    Raises ContractError if no noise can do it.
    """
    budget = f"epsilon {privacy.epsilon} at delta_dp {privacy.delta_dp} for {how_many(privacy.rounds, 'round')}"
    if epsilon(beside, privacy.delta_dp, privacy.unit) >= privacy.epsilon:
        raise ContractError(f"the counts of evaluations, groups and drift alone spend {budget}: raise their noise_std, or "
                            "the budget")

    def cost(thousandths: int) -> float:
        return epsilon([*beside, *[training(thousandths / 1000)] * (times or privacy.rounds)], privacy.delta_dp, privacy.unit)

    spent = math.fsum(precision_of(one.noise_std / (one.rows_per_person or 1))
                      for one in beside if isinstance(one, GaussianCounts))
    left = mu_squared(privacy.epsilon, privacy.delta_dp) - spent
    largest = int(LARGEST_NOISE_MULTIPLIER * 1000)
    low, high = _Tried(0, math.inf), None
    at, halve = min(max(round(1000 * guess(max(left, 1e-12))), 1), largest), False
    while True:
        width = largest if high is None else high.thousandths - low.thousandths
        tried = _Tried(at, cost(at))
        low, high = (low, tried) if tried.cost <= privacy.epsilon else (tried, high)
        if high is None and at == largest:
            raise ContractError(f"no noise multiplier up to {LARGEST_NOISE_MULTIPLIER:.0f} keeps {budget}: raise "
                                "evaluation.noise_std, or ask for fewer rounds or steps")
        if high is not None and high.thousandths - low.thousandths == 1:
            return high.thousandths / 1000
        halve = not halve and high is not None and 2 * (high.thousandths - low.thousandths) > width
        if halve and high is not None:
            at = (low.thousandths + high.thousandths) // 2
        else:
            at = _next(low, high, privacy.epsilon, largest)


@dataclass(frozen=True)
class _Tried:
    """A noise multiplier, and what the campaign costs with it."""

    thousandths: int
    cost: float


def _next(low: _Tried, high: _Tried | None, budget: float, largest: int) -> int:
    """The next noise to try between too little and enough; each trial takes long. The cost falls at least as fast as
    1/noise. So after one trial, a step by the ratio of costs reaches the other side. After two trials, linear interpolation
    of logarithms is close.
    """
    if high is None:
        return min(math.ceil(low.thousandths * min(low.cost / budget, 4.0)) + 1, largest)
    if math.isinf(low.cost) or high.cost <= 0:
        found = math.floor(high.thousandths * max(high.cost / budget, 0.25)) - 1
    else:
        share = math.log(low.cost / budget) / math.log(low.cost / high.cost)
        found = math.ceil(low.thousandths * (high.thousandths / low.thousandths) ** share)
    return min(max(found, low.thousandths + 1), high.thousandths - 1)


def mu_squared(eps: float, delta_dp: float) -> float:
    """The squared mean of the Gaussian that costs exactly (eps, delta_dp): what many small releases add up to
    (Bu et al. 2020, arXiv:1911.11607).
    """
    low, high = 0.0, 1000.0
    for _ in range(60):
        mu = (low + high) / 2
        low, high = (low, mu) if gaussian_delta(eps, mu) > delta_dp else (mu, high)
    return low ** 2
