"""What a promise for one record is worth for a person with several rows.

A person's rows are drawn each by itself. So a step's sum holds k of them with the probability of a binomial law, and the pair
that dominates the step is a mixture of Gaussians with means 0, 1, … K against one with mean 0 (Ganesh 2024, arXiv:2401.10294,
theorem 1). This is far below what a bound for groups makes of epsilon alone. What is noised without sampling moves by K times
as much; an update that is clipped as a whole moves no further for many rows than for one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache, reduce

from fedround.errors import PrivacyError
from fedround.privacy.accounting import LARGEST_EPSILON, SMALLEST_DELTA_DP, Pld
from fedround.privacy.spec import GaussianUpdate, Mechanism
from fedround.privacy.units import precision_of, released
from fedround.spoken import how_many

MOST_ROWS = 50
"""More rows of one person are not computed: their epsilon means nothing."""

_COARSEST_GRID, _FINEST_GRID = 2.0 ** -7, 2.0 ** -20
_DIGITS = 1e6


def epsilon_of_person(mechanisms: Iterable[tuple[Mechanism, int]], delta_dp: float) -> float:
    """What mechanisms cost together a person whose contribution is replaced by nothing: an upper bound, rounded up to a
    millionth. Each comes with how many of the person's rows it may be used on. Infinite above LARGEST_EPSILON, or if one of
    them is not noised. For a single row it is `accounting.epsilon`, less than a per cent apart.

    Raises PrivacyError for more than MOST_ROWS rows, or a `delta_dp` outside [SMALLEST_DELTA_DP, 1).
    """
    if not SMALLEST_DELTA_DP <= delta_dp < 1:
        raise PrivacyError(f"delta_dp {delta_dp} is outside [{SMALLEST_DELTA_DP}, 1): no bound can be vouched for")
    sampled, precision = Counter[tuple[float, float, int]](), 0.0
    for (mechanism, rows), times in Counter(mechanisms).items():
        if not 0 <= rows <= MOST_ROWS:
            raise PrivacyError(f"{how_many(rows, 'row')} of one person: expected 0 to {MOST_ROWS}")
        if rows == 0:
            continue
        if (one := released(mechanism, "record")) is None:
            return math.inf
        if isinstance(mechanism, GaussianUpdate):
            precision += times * precision_of(one.noise_multiplier)
        elif one.sampling_rate == 1:
            precision += times * one.steps * rows ** 2 * precision_of(one.noise_multiplier)
        else:
            sampled[one.noise_multiplier, one.sampling_rate, rows] += times * one.steps
    return _total(tuple(sorted(sampled.items())), precision, delta_dp)


def dearest_person(trained: Sequence[Mechanism], held_out: Sequence[Mechanism], of_all: Sequence[Mechanism], delta_dp: float,
                   rows: int, *, apart: bool = False) -> float:
    """Epsilon of the person with so many rows who pays most.

    trained, held_out, of_all, apart: as `fedround.rounds.campaign.dearest_record`. Where rows pay apart, a person may have
    some to train on and some held out: the dearest division counts.
    """
    def paid(to_train: int, held: int) -> float:
        return epsilon_of_person([*((one, to_train) for one in trained), *((one, held) for one in held_out),
                                  *((one, rows) for one in of_all)], delta_dp)

    return max(paid(share, rows - share) for share in range(rows + 1)) if apart else paid(rows, rows)


Sampled = tuple[tuple[tuple[float, float, int], int], ...]
"""(noise multiplier, sampling rate, rows of the person) of sampled Gaussians, and how many of each."""


@lru_cache(maxsize=256)
def _total(sampled: Sampled, precision: float, delta_dp: float) -> float:
    if not sampled and precision == 0:
        return 0.0
    if not math.isfinite(precision) or precision > LARGEST_EPSILON or any(noise < 0.1 for (noise, _, _), _ in sampled):
        return math.inf
    from dp_accounting.pld import privacy_loss_distribution

    grid = _grid(sampled, precision)
    parts = [_steps(*one, times, grid) for one, times in sampled]
    if precision > 0:
        parts.append(privacy_loss_distribution.from_gaussian_mechanism(
            precision ** -0.5, value_discretization_interval=grid, pessimistic_estimate=True))
    whole = reduce(lambda one, other: one.compose(other), parts)
    bound = float(whole.get_epsilon_for_delta(delta_dp))
    return math.ceil(bound * _DIGITS) / _DIGITS if bound <= LARGEST_EPSILON else math.inf


def _binomial(rows: int, rate: float) -> list[float]:
    return [math.comb(rows, k) * rate ** k * (1 - rate) ** (rows - k) for k in range(rows + 1)]


def _grid(sampled: Sampled, precision: float) -> float:
    """The width of a cell of privacy loss, as `accounting` has it: a fifth of one step's typical loss."""
    variance, steps = precision, int(precision > 0)
    for (noise, rate, rows), times in sampled:
        law = _binomial(rows, rate)
        chi = math.fsum(one * other * math.expm1(min(j * k * precision_of(noise), 50.0))
                        for j, one in enumerate(law) for k, other in enumerate(law))
        variance, steps = variance + times * chi, steps + times
    cell = math.sqrt(variance / steps) / 5
    return 2.0 ** math.floor(math.log2(min(max(cell, _FINEST_GRID), _COARSEST_GRID)))


@lru_cache(maxsize=64)
def _steps(noise: float, rate: float, rows: int, times: int, grid: float) -> Pld:
    """The PLD of `times` sampled Gaussians with so many rows of one person."""
    from dp_accounting.pld import privacy_loss_distribution

    one = privacy_loss_distribution.from_mixture_gaussian_mechanism(
        noise, sensitivities=[float(k) for k in range(rows + 1)], sampling_probs=_binomial(rows, rate),
        value_discretization_interval=grid, pessimistic_estimate=True)
    return one.self_compose(times) if times > 1 else one
