"""What a list of mechanisms costs: upper bounds on epsilon, never rounded down, for one unit at a time.

What a mechanism protects for a unit, `fedround.privacy.units` says. This module composes.

The accountant is the privacy loss distributions (PLD) of dp_accounting with pessimistic rounding (Doroshenko et al. 2022,
arXiv:2207.04380; composition by FFT after Koskela et al. 2020, arXiv:1906.03049). Sampling is Poisson; batches of a fixed
size would need another analysis, and `DpFtrl`, which samples nothing, gains nothing from it.

Mechanisms that are fixed before any of them releases anything compose exactly. A mechanism that is chosen after a release is
priced at a Gaussian that dominates it (`later`; `fedround.privacy.envelope` has the theorem): sums of squared means are a
privacy filter, composed PLDs are none.

This is cheap because a campaign repeats itself: PLDs are cached, and `n` repetitions are the composition of `n//2` and
`n - n//2` of them, so that round k needs one composition when round k-1 was asked before. A total depends only on the
multiset of mechanisms, not on their order or on earlier questions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import chain, repeat
from typing import Any

from fedround.errors import PrivacyError
from fedround.privacy.spec import Mechanism, Unit
from fedround.privacy.units import LARGEST_NOISE, SMALLEST_NOISE, alone, precision_of, pure, released

SMALLEST_DELTA_DP = 1e-10
"""Below this, the rounding of the FFT is not small compared with delta_dp."""

LARGEST_EPSILON = 500.0
"""An epsilon above this promises nothing; it is reported as infinite, which keeps the work bounded."""

FOR_TAILS = 0.05
"""The share of delta_dp that pays for the tails of what is chosen later: a dominating Gaussian need not reach into them."""

_FINEST_GRID, _COARSEST_GRID = 2.0 ** -20, 2.0 ** -8
_DIGITS = 1e6                   # totals are rounded up to a millionth, which also swallows the last bits of the FFT

Pld = Any                       # dp_accounting.pld.privacy_loss_distribution.PrivacyLossDistribution; it has no types


@dataclass(frozen=True)
class Batch:
    """Mechanisms that were fixed together, before any of them was used, and how often each."""

    fixed: tuple[tuple[Mechanism, int], ...]
    unused: tuple[tuple[Mechanism, int], ...] = ()
    """Those of them that can never be used again. They give back the cost of a Gaussian that they dominate."""

    def alone(self) -> Batch:
        """The same, if of shared noise the site's own share alone counts."""
        return Batch(*(tuple((alone(mechanism), times) for mechanism, times in uses) for uses in (self.fixed, self.unused)))


def epsilon(mechanisms: Iterable[Mechanism], delta_dp: float, unit: Unit = "record") -> float:
    """What all of `mechanisms` together cost at `delta_dp`, if they were fixed before any of them was used: an upper bound,
    rounded up to a millionth.

    At most 0.5 % and 0.0001 above the exact value for up to 10^5 steps and delta_dp >= 1e-8, and at most 2 % above it down
    to SMALLEST_DELTA_DP (both tested). Infinite with a `NoMechanism` among them, with a mechanism that bounds nothing for
    this unit, and when the true cost is above LARGEST_EPSILON. Nothing costs 0.
    Raises PrivacyError if `delta_dp` is outside [SMALLEST_DELTA_DP, 1).
    """
    return epsilon_of_batches([Batch(tuple(Counter(mechanisms).items()))], delta_dp, unit)


def epsilon_of_batches(batches: Sequence[Batch], delta_dp: float, unit: Unit = "record") -> float:
    """The total cost of batches at `delta_dp`, if each was chosen after seeing all that the earlier ones released: an upper
    bound, like `epsilon`. For a single batch it equals `epsilon`.

    The first composes exactly, and every later one is priced at a Gaussian that dominates it. So a rule that continues while
    this number is within a bound keeps the bound, however the choices are made (`fedround.privacy.envelope`).
    """
    if not SMALLEST_DELTA_DP <= delta_dp < 1:
        raise PrivacyError(f"delta_dp {delta_dp} is outside [{SMALLEST_DELTA_DP}, 1): no bound can be vouched for")
    coins = math.fsum(told * times for batch in batches for mechanism, times in batch.fixed
                      if (told := pure(mechanism, unit)) is not None)       # nothing of it is given back
    forms = [_form(batch.fixed, unit) for batch in batches]
    unused = [_form(batch.unused, unit) for batch in batches]
    if any(form is None for form in forms):
        return math.inf
    first, later = (forms[0], forms[1:]) if forms else (_NOTHING, [])
    asked = Composed(*(first or _NOTHING), delta_dp, tuple(one for one in later if one is not None and one != _NOTHING),
                     tuple(one for one in unused if one is not None and one != _NOTHING) if any(later) else ())
    found = total(asked) if _elsewhere is None else _elsewhere(asked)
    if not coins:
        return found
    return math.ceil((found + coins) * _DIGITS) / _DIGITS if found + coins <= LARGEST_EPSILON else math.inf


Sampled = tuple[tuple[tuple[float, float, int, bool], int], ...]
"""(noise multiplier, sampling rate, steps, exchanged) of sampled Gaussians, and how many of each."""
Precisions = tuple[tuple[float, int], ...]
"""noise multiplier ** -2 of Gaussians of whole data sets, and how many of each."""
Form = tuple[Sampled, Precisions]
_NOTHING: Form = ((), ())


def _form(mechanisms: Iterable[tuple[Mechanism, int]], unit: Unit) -> Form | None:
    """Releases in a canonical form that does not depend on their order; None: nothing bounds them."""
    sampled: Counter[tuple[float, float, int, bool]] = Counter()
    precisions: Counter[float] = Counter()
    for mechanism, times in mechanisms:
        if pure(mechanism, unit) is not None:
            continue
        releases = released(mechanism, unit)
        if releases is None:
            return None
        if releases.sampling_rate == 1:
            noise = releases.noise_multiplier / (2 if releases.exchanged else 1)
            precisions[releases.steps * precision_of(noise)] += times
        else:
            sampled[min(releases.noise_multiplier, LARGEST_NOISE), releases.sampling_rate, releases.steps,
                    releases.exchanged] += times
    return tuple(sorted(sampled.items())), tuple(sorted(precisions.items()))


@dataclass(frozen=True)
class Composed:
    """What the accountant is asked."""

    sampled: Sampled
    precisions: Precisions
    delta_dp: float
    later: tuple[Form, ...] = ()
    """Batches that were chosen later, in their order."""
    unused: tuple[Form, ...] = ()
    """What gives back."""


_elsewhere: Callable[[Composed], float] | None = None


def ask(elsewhere: Callable[[Composed], float] | None) -> None:
    """Delegate `total` from now on (to `fedround.privacy.apart`, for example); None: compute it in this process again."""
    global _elsewhere  # noqa: PLW0603 - one process has one accountant, as it has one cache of its answers
    _elsewhere = elsewhere


def gaussian_delta(eps: float, mu: float) -> float:
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
    precision = _added(asked.precisions)
    if asked.later:
        chosen, delta_dp = _chosen_later(asked), delta_dp * (1 - FOR_TAILS)
        precision += chosen
    if not sampled and precision == 0:
        return 0.0
    if math.isinf(precision):
        return math.inf
    grid = _grid(sampled, precision)
    parts = [_repeated(one, times, grid) for one, times in sampled]
    if precision > 0:
        parts.append(_pld(precision ** -0.5, 1.0, 1, 1, grid))
    whole = reduce(_compose, parts)
    if whole is None:
        return math.inf
    bound = float(whole.get_epsilon_for_delta(delta_dp))
    return math.ceil(bound * _DIGITS) / _DIGITS if bound <= LARGEST_EPSILON else math.inf


def _added(precisions: Precisions) -> float:
    return math.fsum(chain.from_iterable(repeat(one, times) for one, times in precisions))


def _chosen_later(asked: Composed) -> float:
    """The squared mean of the Gaussian that dominates everything chosen later, minus what is given back."""
    place, squares = 0, []
    for sampled, precisions in asked.later:
        squares.append(_added(precisions))
        if sampled:
            place += 1          # shares of the tails: 1/2, 1/6, 1/12 … add up to the whole, however many there are
            squares.append(_dominating(sampled, asked.delta_dp * FOR_TAILS / (place * (place + 1))))
    back = [_added(precisions) + _dominated(sampled) for sampled, precisions in asked.unused]
    return max(0.0, math.fsum(squares) - math.fsum(back))


@lru_cache(maxsize=256)
def _dominating(sampled: Sampled, tail: float) -> float:
    from fedround.privacy import envelope

    whole = _envelopes_pld(sampled)
    return math.inf if whole is None else envelope.dominating(whole, tail) ** 2


@lru_cache(maxsize=256)
def _dominated(sampled: Sampled) -> float:
    from fedround.privacy import envelope

    whole = _envelopes_pld(sampled) if sampled else None
    return 0.0 if whole is None else envelope.dominated(whole) ** 2


def _envelopes_pld(sampled: Sampled) -> Pld:
    """Few steps need a finer grid here than for epsilon, because the envelope is compared cell by cell."""
    steps = sum(steps_each * times for (_, _, steps_each, _), times in sampled)
    grid = max(_grid(sampled, 0.0) * 2.0 ** -math.ceil(math.log2(max(1.0, 6 / math.sqrt(steps)))), _FINEST_GRID)
    return reduce(_compose, [_repeated(one, times, grid) for one, times in sampled])


def _grid(sampled: Sampled, precision: float) -> float:
    """The width of a cell of privacy loss: a power of two, at most a fifth of one step's typical loss.

    Rounding to the grid adds at most width²/4 to the variance of every step's loss. At a fifth of the (root mean
    square) standard deviation this costs at most 0.4 % of epsilon (measured), and a finer grid only CPU time.
    """
    variance, steps = precision, int(precision > 0)
    for (noise, rate, steps_each, exchanged), times in sampled:
        # chi-square divergence of one sampled step; the cap only keeps exp finite.
        variance += (4 if exchanged else 1) * times * steps_each * rate ** 2 * math.expm1(min(precision_of(noise), 50.0))
        steps += times * steps_each
    cell = math.sqrt(variance / steps) / 5
    return 2.0 ** math.floor(math.log2(min(max(cell, _FINEST_GRID), _COARSEST_GRID)))


def _repeated(one: tuple[float, float, int, bool], times: int, grid: float) -> Pld:
    noise, rate, steps, exchanged = one
    return _pld(noise, rate, steps, times, grid, exchanged=exchanged)


@lru_cache(maxsize=64)
def _pld(noise: float, rate: float, steps: int, times: int, grid: float, *, exchanged: bool = False) -> Pld:
    """The PLD of `times` rounds of `steps` sampled Gaussians; None if it costs more than LARGEST_EPSILON."""
    if noise < SMALLEST_NOISE:
        return None
    if times > 1:
        halves = times // 2, times - times // 2
        return _compose(*(_pld(noise, rate, steps, half, grid, exchanged=exchanged) for half in halves))
    if steps > 1:
        halves = steps // 2, steps - steps // 2
        return _compose(*(_pld(noise, rate, half, 1, grid, exchanged=exchanged) for half in halves))
    if not exchanged:
        from fedround.privacy import sampled

        return sampled.distribution(noise, rate, grid)
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import privacy_loss_distribution

    # Of a vector that is exchanged: (1 - q) N(0) + q N(1) against (1 - q) N(0) + q N(-1) (Zhu, Dong and Wang 2022,
    # arXiv:2106.08567; Lebeda et al. 2024, arXiv:2405.20769).
    return privacy_loss_distribution.from_gaussian_mechanism(
        noise, sampling_prob=rate, value_discretization_interval=grid, pessimistic_estimate=True,
        neighboring_relation=NeighboringRelation.REPLACE_ONE)


def _compose(one: Pld, other: Pld) -> Pld:
    """Both together, or None when one of them already costs more than LARGEST_EPSILON at any delta_dp below a half."""
    for pld in (one, other):
        if pld is None or pld.get_delta_for_epsilon(LARGEST_EPSILON) > 0.5:
            return None
    return one.compose(other)
