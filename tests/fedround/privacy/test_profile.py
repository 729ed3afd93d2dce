"""A promise in other words is the promise: of a Gaussian, its own mean and its own trade-off curve, never below."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest

from fedround.privacy.accounting import epsilon
from fedround.privacy.profile import DELTAS, WRONGLY, in_words, profile, upward
from fedround.privacy.spec import GaussianCounts

NORMAL = NormalDist()


@pytest.mark.parametrize("mu", [0.25, 1.0])
def test_a_gaussians_profile_is_that_of_the_gaussian_and_never_below(mu: float):
    told = profile(lambda delta_dp: epsilon([GaussianCounts(noise_std=1 / mu)], delta_dp), 1e-5)
    assert mu <= told.mu <= 1.01 * mu
    assert list(told.epsilons) == sorted(DELTAS, reverse=True)
    assert sorted(told.epsilons.values()) == list(told.epsilons.values())
    for wrongly in WRONGLY:
        exact = NORMAL.cdf(NORMAL.inv_cdf(wrongly) + mu)
        assert exact <= told.rightly[wrongly] <= exact * 1.5


@pytest.mark.parametrize(("eps", "mu", "rightly"), [(0.0, 0.0, lambda wrongly: wrongly + min(DELTAS)),
                                                    (math.inf, math.inf, lambda _: 1.0)])
def test_what_costs_nothing_tells_nothing_and_what_nothing_bounds_tells_all(eps, mu, rightly):
    told = profile(lambda _: eps, 1e-5)
    assert told.mu == mu
    assert told.rightly == {wrongly: pytest.approx(rightly(wrongly)) for wrongly in WRONGLY}


@pytest.mark.parametrize("eps", [0.5, 3.0])
def test_a_pure_promise_is_its_two_lines(eps: float):
    """Kairouz, Oh and Viswanath 2015, theorem 2.1, at delta 0."""
    told = profile(lambda delta_dp: eps if delta_dp < 1e-7 else 100.0, 1e-5)
    for wrongly, power in told.rightly.items():
        assert power == pytest.approx(min(math.exp(eps) * wrongly, 1 - math.exp(-eps) * (1 - wrongly)), abs=1e-7)


def test_numbers_are_rounded_up_and_a_number_that_is_short_enough_stays():
    assert [upward(value, 2) for value in (0.5, 1.001, 1.0, math.inf)] == ["0.50", "1.01", "1.00", "inf"]
    told, curve = in_words(profile(lambda _: 1.23401, 1e-5))
    assert "δ 1e-06: 1.235" in told
    assert curve.startswith("accused wrongly → rightly, at most: 0.1% → 0.4%, 1.0% → 3.5%")
