"""The quick bound is above the accountant's cost, and not far above it where it is used."""

from __future__ import annotations

import math

import mpmath
import pytest

from fedround.privacy.accounting import epsilon
from fedround.privacy.quick import epsilon_at_most
from fedround.privacy.spec import DpFtrl, DpSgd, GaussianCounts, GaussianUpdate, NoMechanism

DELTA = 1e-5


@pytest.mark.parametrize(("mechanism", "times"), [
    (DpSgd(noise_multiplier=1.255, clip_norm=1.0, sampling_rate=0.07, steps=10), 20),
    (DpSgd(noise_multiplier=4.4, clip_norm=1.0, sampling_rate=0.3, steps=10), 20),
    (DpSgd(noise_multiplier=13.8, clip_norm=1.0, sampling_rate=1.0, steps=10), 20),
    (DpSgd(noise_multiplier=4.4, clip_norm=1.0, sampling_rate=0.3, steps=10, count_noise_std=10.0), 20),
    (DpFtrl(noise_multiplier=8.8, clip_norm=1.0, batch_size=128, steps=10), 20),
    (GaussianUpdate(noise_multiplier=4.0, clip_norm=1.0), 20), (GaussianCounts(noise_std=10.0), 21)],
    ids=["seldom", "often", "all rows", "counted", "tree", "update", "counts"])
def test_it_is_above_the_cost_and_near_it(mechanism, times):
    exact, quick = epsilon([mechanism] * times, DELTA), epsilon_at_most([(mechanism, times)], DELTA, "record")
    assert exact <= quick < exact * 1.15


@pytest.mark.parametrize("rate", [1e-3, 0.5, 1.0])
@pytest.mark.parametrize("noise", [1e-6, 0.3, 1e6])
def test_it_is_never_below_the_cost_nor_not_a_number(noise, rate):
    mechanism = DpSgd(noise_multiplier=noise, clip_norm=1.0, sampling_rate=rate, steps=1)
    quick = epsilon_at_most([(mechanism, 3)], DELTA, "record")
    assert not math.isnan(quick)
    assert quick >= min(epsilon([mechanism] * 3, DELTA), 400.0) * (1 - 1e-6)


@pytest.mark.parametrize("noise", [1e-6, 0.3, 1e6])
def test_the_rarest_draws_are_numbers_too(noise):
    """The accountant takes minutes for some of these."""
    mechanism = DpSgd(noise_multiplier=noise, clip_norm=1.0, sampling_rate=1e-9, steps=10_000)
    assert epsilon_at_most([(mechanism, 3)], DELTA, "record") >= 0


def in_plain_loops(noise: float, rate: float, times: int) -> float:
    """Mironov, Talwar and Zhang 2019, equation 6; Canonne, Kamath and Steinke 2020, proposition 12: with fifty digits."""
    found = []
    with mpmath.workdps(50):
        for order in range(2, 65):      # larger ones are for less than is spent here
            moment = mpmath.mpf(0)
            for k in range(order + 1):
                moment += (mpmath.binomial(order, k) * (1 - mpmath.mpf(rate)) ** (order - k) * mpmath.mpf(rate) ** k
                           * mpmath.exp(mpmath.mpf(k * (k - 1)) / (2 * mpmath.mpf(noise) ** 2)))
            spent = times * mpmath.log(moment) / (order - 1)
            found.append(spent + mpmath.log1p(mpmath.mpf(-1) / order) - (mpmath.log(DELTA) + mpmath.log(order)) / (order - 1))
        return float(min(found))


@pytest.mark.parametrize(("noise", "rate", "times"), [(4.4, 0.3, 200), (1.1, 0.01, 50), (2.0, 1.0, 3)])
def test_it_is_the_formula(noise, rate, times):
    mechanism = DpSgd(noise_multiplier=noise, clip_norm=1.0, sampling_rate=rate, steps=1)
    assert epsilon_at_most([(mechanism, times)], DELTA, "record") == pytest.approx(
        in_plain_loops(noise, rate, times), rel=1e-9)


def test_more_costs_more_and_what_nothing_bounds_is_infinite():
    update = GaussianUpdate(noise_multiplier=4.0, clip_norm=1.0)
    assert epsilon_at_most([(update, 3)], DELTA, "record") < epsilon_at_most([(update, 4)], DELTA, "record")
    assert epsilon_at_most([(update, 1)], DELTA, "site") < epsilon_at_most([(update, 1)], DELTA, "record")
    assert epsilon_at_most([(NoMechanism(), 1)], DELTA, "record") == math.inf
    counts = GaussianCounts(noise_std=10.0)
    assert epsilon_at_most([(counts, 1)], DELTA, "site") == math.inf
