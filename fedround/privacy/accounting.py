"""What a list of mechanisms costs: upper bounds on epsilon, never rounded down, for one unit at a time.

Two units, which are never added or compared:

* `record`: one record of one site, its contribution replaced by nothing; the number of rows is public.
* `site`: all that one site contributes, replaced by nothing.

What leaves under one unit has a cost under the other, too. A noised update protects each record as well, but at twice the
clip norm: exchanging one record can turn the clipped update into any other. Whatever was noised for records only has no
bound for the site: its cost is infinite.

The accountant is the privacy loss distributions (PLD) of dp_accounting with pessimistic rounding (Doroshenko et al. 2022,
arXiv:2207.04380; composition by FFT after Koskela et al. 2020, arXiv:1906.03049). Sampling is Poisson; batches of a fixed
size would need another analysis, and `DpFtrl`, which samples nothing, gains nothing from it.

Cheap because a campaign repeats itself: PLDs are cached, and `n` repetitions are the composition of `n//2` and
`n - n//2` of them, so that round k needs one composition when round k-1 was asked before. A total depends on the
multiset of mechanisms only, not on their order and not on what was asked earlier.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import chain, repeat
from typing import Any

from fedround.errors import ContractError, PrivacyError
from fedround.privacy.spec import (
    DpFtrl,
    DpSgd,
    GaussianCounts,
    GaussianUpdate,
    Mechanism,
    NoMechanism,
    RecordPrivacy,
    SitePrivacy,
    Unit,
)
from fedround.privacy.tree import depth

SMALLEST_DELTA_DP = 1e-10
"""Below this the rounding of the FFT is no longer small against delta_dp."""

LARGEST_EPSILON = 500.0
"""An epsilon above this promises nothing; it is reported as infinite, which keeps the work bounded."""

LARGEST_NOISE_MULTIPLIER = 1000.0
_SMALLEST_NOISE = 0.02          # one Gaussian release with less costs more than LARGEST_EPSILON
_LARGEST_NOISE = 1e6            # more is counted as this much
_FINEST_GRID, _COARSEST_GRID = 2.0 ** -20, 2.0 ** -8
_DIGITS = 1e6                   # totals are rounded up to a millionth, which also swallows the last bits of the FFT

Pld = Any                       # dp_accounting.pld.privacy_loss_distribution.PrivacyLossDistribution; it has no types


@dataclass(frozen=True)
class _Gaussians:
    """`steps` Gaussian releases in a row, each of a Poisson sample: what every mechanism is to the accountant."""

    noise_multiplier: float
    sampling_rate: float = 1.0
    steps: int = 1


def epsilon(mechanisms: Iterable[Mechanism], delta_dp: float, unit: Unit = "record") -> float:
    """What all of `mechanisms` together cost at `delta_dp`: an upper bound, rounded up to a millionth.

    At most 0.5 % above the exact value for up to 10^5 steps and delta_dp >= 1e-8 (tested). Infinite with a
    `NoMechanism` among them, with a mechanism that bounds nothing for this unit, and when the true cost is above
    LARGEST_EPSILON. Nothing costs 0.
    Raises PrivacyError if `delta_dp` is outside [SMALLEST_DELTA_DP, 1).
    """
    if not SMALLEST_DELTA_DP <= delta_dp < 1:
        raise PrivacyError(f"delta_dp {delta_dp} is outside [{SMALLEST_DELTA_DP}, 1): no bound can be vouched for")
    sampled: Counter[tuple[float, float, int]] = Counter()
    precisions: Counter[float] = Counter()
    for mechanism in mechanisms:
        releases = _for_record(mechanism) if unit == "record" else _for_site(mechanism)
        if releases is None:
            return math.inf
        if releases.sampling_rate == 1:
            precisions[releases.steps * _precision(releases.noise_multiplier)] += 1
        else:
            sampled[min(releases.noise_multiplier, _LARGEST_NOISE), releases.sampling_rate, releases.steps] += 1
    asked = Composed(tuple(sorted(sampled.items())), tuple(sorted(precisions.items())), delta_dp)
    return total(asked) if _elsewhere is None else _elsewhere(asked)


@dataclass(frozen=True)
class Composed:
    """What the accountant is asked: many releases in one form, whatever order they were told in."""

    sampled: tuple[tuple[tuple[float, float, int], int], ...]
    """(noise multiplier, sampling rate, steps) of sampled Gaussians, and how many of each."""
    precisions: tuple[tuple[float, int], ...]
    """noise multiplier ** -2 of Gaussians of whole data sets, and how many of each."""
    delta_dp: float


_elsewhere: Callable[[Composed], float] | None = None


def ask(elsewhere: Callable[[Composed], float] | None) -> None:
    """Have `total` computed by somebody else from now on (`fedround.privacy.apart`), or here again: None."""
    global _elsewhere  # noqa: PLW0603 - one process has one accountant, as it has one cache of its answers
    _elsewhere = elsewhere


def _for_record(mechanism: Mechanism) -> _Gaussians | None:
    """What one record is protected by; None: by nothing."""
    match mechanism:
        case DpSgd(noise_multiplier=noise, sampling_rate=rate, steps=steps, count_noise_std=std):
            return _Gaussians(noise if std is None else joint_noise(noise, std), rate, steps)
        case DpFtrl(noise_multiplier=noise, steps=steps):
            return _Gaussians(noise / math.sqrt(depth(steps)))      # a row is in one step, and in `depth` nodes at most
        case GaussianCounts(noise_std=std):
            return _Gaussians(std)
        case GaussianUpdate(noise_multiplier=noise):
            return _Gaussians(noise / 2)                            # from one point of a ball to any other
        case NoMechanism():
            return None


def _for_site(mechanism: Mechanism) -> _Gaussians | None:
    """What a site as a whole is protected by; None: by nothing that could be bounded."""
    return _Gaussians(mechanism.noise_multiplier) if isinstance(mechanism, GaussianUpdate) else None


def dearest(charges: Iterable[Sequence[Mechanism]]) -> tuple[Mechanism, ...]:
    """Mechanisms that cost at least as much as those of any one charge, whatever else they are composed with; their very
    price, if all are alike. A charge has one training mechanism at most, and any number of counts.

    Less noise, more steps and drawing rows more often never cost less (to draw less often is post-processing of the data).
    """
    known = [tuple(charge) for charge in charges]
    if any(NoMechanism() in charge for charge in known):
        return (NoMechanism(),)
    counts = [_joint_std([one.noise_std for one in charge if isinstance(one, GaussianCounts)]) for charge in known]
    trained = [one for charge in known for one in charge if not isinstance(one, GaussianCounts)]
    updates = [one.noise_multiplier for one in trained if isinstance(one, GaussianUpdate)]
    releases = [protected for one in trained if (protected := _for_record(one)) is not None]
    found: list[Mechanism] = []
    if updates and len(updates) == len(releases):
        found.append(GaussianUpdate(noise_multiplier=min(updates), clip_norm=1.0))
    elif releases:
        found.append(DpSgd(
            noise_multiplier=min(one.noise_multiplier for one in releases), clip_norm=1.0,
            sampling_rate=max(one.sampling_rate for one in releases), steps=max(one.steps for one in releases)))
    loudest = [std for std in counts if std is not None]
    return (*found, *([GaussianCounts(noise_std=min(loudest))] if loudest else []))


def _joint_std(stds: Sequence[float]) -> float | None:
    """The noise of one table of counts that costs what these do together, rounded down; None: there are none."""
    if len(stds) < 2:
        return stds[0] if stds else None
    return (1 - 1e-12) / math.sqrt(math.fsum(std ** -2 for std in stds))


def joint_noise(gradients: float, count_std: float) -> float:
    """The noise multiplier of one Gaussian release that costs what two of the same sample do (Andrew et al. 2021, theorem 1).

    gradients: noise multiplier of the sum of gradients. count_std: standard deviation of the noise on the count of gradients
    within the clip norm, counted as +1/2 or -1/2 each, so that one record moves it by a half.
    """
    return 1 / math.sqrt(_precision(gradients) + _precision(2 * count_std))


def calibrate(privacy: RecordPrivacy, sampling_rate: float, steps_per_round: int, beside: Sequence[Mechanism]) -> float:
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
                     count_noise_std=privacy.count_noise_std)

    return smallest_noise(privacy, training, beside, lambda mu2: 1 / math.sqrt(math.log1p(mu2 / spread)))


def smallest_noise(privacy: RecordPrivacy | SitePrivacy, training: Callable[[float], Mechanism],
                   beside: Sequence[Mechanism], guess: Callable[[float], float]) -> float:
    """The smallest noise multiplier, in thousandths, with which `rounds` times `training(noise)` and what is released
    `beside` them stay within the budget of `privacy`.

    guess: where to look first, from what the training may spend, as the squared mean of a Gaussian's privacy loss (mu²). It
    decides only how long the search takes.
    Raises ContractError if no noise can do it.
    """
    budget = f"epsilon {privacy.epsilon} at delta_dp {privacy.delta_dp} for {privacy.rounds} rounds"
    if epsilon(beside, privacy.delta_dp, privacy.unit) >= privacy.epsilon:
        raise ContractError(f"the evaluations alone spend {budget}: raise evaluation.noise_std or the budget")

    def cost(thousandths: int) -> float:
        return epsilon([*beside, *[training(thousandths / 1000)] * privacy.rounds], privacy.delta_dp, privacy.unit)

    spent = math.fsum(_precision(one.noise_std) for one in beside if isinstance(one, GaussianCounts))
    left = _mu_squared(privacy.epsilon, privacy.delta_dp) - spent
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
    """Where to look between too little and enough; each trial takes long. The cost falls at least as fast as 1/noise: from
    one trial a step by the ratio of costs goes to the other side. From two, a line in logarithms comes near.
    """
    if high is None:
        return min(math.ceil(low.thousandths * min(low.cost / budget, 4.0)) + 1, largest)
    if math.isinf(low.cost) or high.cost <= 0:
        found = math.floor(high.thousandths * max(high.cost / budget, 0.25)) - 1
    else:
        share = math.log(low.cost / budget) / math.log(low.cost / high.cost)
        found = math.ceil(low.thousandths * (high.thousandths / low.thousandths) ** share)
    return min(max(found, low.thousandths + 1), high.thousandths - 1)


def _mu_squared(eps: float, delta_dp: float) -> float:
    """The squared mean of the Gaussian that costs exactly (eps, delta_dp): what many small releases add up to
    (Bu et al. 2020, arXiv:1911.11607).
    """
    low, high = 0.0, 1000.0
    for _ in range(60):
        mu = (low + high) / 2
        low, high = (low, mu) if _gaussian_delta(eps, mu) > delta_dp else (mu, high)
    return low ** 2


def _gaussian_delta(eps: float, mu: float) -> float:
    """delta_dp of the Gaussian mechanism with noise 1/mu at `eps` (Balle and Wang 2018, arXiv:1805.06530)."""
    def tail(x: float) -> float:
        return math.erfc(x / math.sqrt(2)) / 2

    return tail(eps / mu - mu / 2) - math.exp(eps) * tail(eps / mu + mu / 2)


@lru_cache(maxsize=256)
def total(asked: Composed) -> float:
    """Epsilon of all that is asked about; imports the accountant, which takes 70 MB and a CPU second.

    Gaussians without sampling compose in closed form: their precisions add up.
    """
    sampled, delta_dp = asked.sampled, asked.delta_dp
    precision = math.fsum(chain.from_iterable(repeat(one, times) for one, times in asked.precisions))
    if not sampled and precision == 0:
        return 0.0
    grid = _grid(sampled, precision)
    parts = [(noise, rate, steps, times) for (noise, rate, steps), times in sampled]
    if precision > 0:
        parts.append((precision ** -0.5, 1.0, 1, 1))
    whole = reduce(_compose, [_pld(*part, grid) for part in parts])
    if whole is None:
        return math.inf
    bound = float(whole.get_epsilon_for_delta(delta_dp))
    return math.ceil(bound * _DIGITS) / _DIGITS if bound <= LARGEST_EPSILON else math.inf


def _precision(noise: float) -> float:
    """1 / noise², in a range where nothing overflows: half of _SMALLEST_NOISE already costs everything."""
    return min(max(noise, _SMALLEST_NOISE / 2), _LARGEST_NOISE) ** -2


def _grid(sampled: tuple[tuple[tuple[float, float, int], int], ...], precision: float) -> float:
    """The width of a cell of privacy loss: a power of two, at most a fifth of one step's typical loss.

    Rounding to the grid adds at most width²/4 to the variance of every step's loss. At a fifth of the (root mean
    square) standard deviation this costs at most 0.4 % of epsilon (measured), and a finer grid only CPU time.
    """
    variance, steps = precision, int(precision > 0)
    for (noise, rate, steps_each), times in sampled:
        # chi-square divergence of one sampled step; the cap only keeps exp finite.
        variance += times * steps_each * rate ** 2 * math.expm1(min(_precision(noise), 50.0))
        steps += times * steps_each
    cell = math.sqrt(variance / steps) / 5
    return 2.0 ** math.floor(math.log2(min(max(cell, _FINEST_GRID), _COARSEST_GRID)))


@lru_cache(maxsize=64)
def _pld(noise: float, rate: float, steps: int, times: int, grid: float) -> Pld:
    """The PLD of `times` rounds of `steps` sampled Gaussians; None if it costs more than LARGEST_EPSILON."""
    if noise < _SMALLEST_NOISE:
        return None
    if times > 1:
        return _compose(_pld(noise, rate, steps, times // 2, grid), _pld(noise, rate, steps, times - times // 2, grid))
    if steps > 1:
        return _compose(_pld(noise, rate, steps // 2, 1, grid), _pld(noise, rate, steps - steps // 2, 1, grid))
    from dp_accounting.pld import privacy_loss_distribution

    return privacy_loss_distribution.from_gaussian_mechanism(
        noise, sampling_prob=rate, value_discretization_interval=grid, pessimistic_estimate=True)


def _compose(one: Pld, other: Pld) -> Pld:
    """Both together, or None when one of them already costs more than LARGEST_EPSILON at any delta_dp below a half."""
    for pld in (one, other):
        if pld is None or pld.get_delta_for_epsilon(LARGEST_EPSILON) > 0.5:
            return None
    return one.compose(other)
