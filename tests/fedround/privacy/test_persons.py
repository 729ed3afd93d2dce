"""What a promise for a record is worth for a person with several rows."""

import math

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import binom

from fedround.errors import PrivacyError
from fedround.privacy.accounting import epsilon
from fedround.privacy.persons import dearest_person, epsilon_of_person
from fedround.privacy.profile import upward
from fedround.privacy.spec import DpFtrl, DpSgd, GaussianCounts, GaussianUpdate, NoMechanism

DELTA = 1e-5


def sgd(rate: float, noise: float, steps: int) -> DpSgd:
    return DpSgd(noise_multiplier=noise, clip_norm=1.0, sampling_rate=rate, steps=steps)


def by_convolution(rate: float, noise: float, steps: int, rows: int, way: int, cells: int = 1 << 16) -> float:
    """A second computation: the loss of the mixture on a grid, rounded to the middle, composed by one FFT."""
    law_K, mean_K = binom.pmf(np.arange(rows + 1), rows, rate), np.arange(rows + 1)
    x_X = np.linspace(-12 * noise, rows + 12 * noise, 30_001)
    loss_X = way * np.log(np.exp((2 * x_X[:, None] * mean_K - mean_K ** 2) / (2 * noise ** 2)) @ law_K)
    below_X = law_K @ ndtr((x_X - mean_K[:, None]) / noise) if way > 0 else ndtr(x_X / noise)
    mass_X, middle_X = np.diff(below_X), (loss_X[1:] + loss_X[:-1]) / 2
    end = 12 * math.sqrt(steps * mass_X @ (middle_X - mass_X @ middle_X) ** 2) + 2 * np.abs(steps * mass_X @ middle_X) + 20
    width = 2 * end / cells
    one_C = np.bincount(np.clip(np.rint(middle_X / width), -cells // 2, cells // 2 - 1).astype(int) % cells, mass_X, cells)
    whole_C = np.fft.fftshift(np.fft.irfft(np.fft.rfft(one_C) ** steps, cells))
    loss_C = np.arange(-cells // 2, cells // 2) * width
    low, high = 0.0, end
    for _ in range(40):
        eps = (low + high) / 2
        delta = (whole_C * -np.expm1(np.minimum(eps - loss_C, 0)))[loss_C > eps].sum()
        low, high = (eps, high) if delta > DELTA else (low, eps)
    return high


@pytest.mark.parametrize(("rate", "noise", "steps", "rows"), [(0.64, 8.896, 200, 2), (0.0284, 0.792, 40, 5)])
def test_a_second_computation_says_the_same_from_below(rate: float, noise: float, steps: int, rows: int):
    exact = max(by_convolution(rate, noise, steps, rows, way) for way in (1, -1))
    assert exact * (1 - 1e-4) <= epsilon_of_person([(sgd(rate, noise, steps), rows)], DELTA) <= exact * 1.01


def test_the_reviewers_numbers():
    """A bank of 400 rows that promises epsilon 5 per record: 11.5 for two rows of one person, 38.9 for five."""
    campaign = [sgd(0.64, 8.896, 10)] * 20, [GaussianCounts(noise_std=10.0)] * 21
    assert [round(dearest_person(*campaign, (), DELTA, rows), 1) for rows in (1, 2, 5)] == [5.0, 11.5, 38.9]


@pytest.mark.parametrize("mechanism", [sgd(0.2, 2.0, 20), sgd(1.0, 4.0, 20), GaussianCounts(noise_std=3.0), DpFtrl(
    noise_multiplier=4.0, clip_norm=1.0, batch_size=10, steps=8), GaussianUpdate(noise_multiplier=4.0, clip_norm=1.0)],
    ids=lambda one: one.kind)
def test_one_row_is_a_record_and_more_rows_cost_more_except_of_a_clipped_update(mechanism):
    one, two = (epsilon_of_person([(mechanism, rows)], DELTA) for rows in (1, 2))
    assert one == pytest.approx(epsilon([mechanism], DELTA), rel=0.01)
    assert two == one if isinstance(mechanism, GaussianUpdate) else two > 1.9 * one
    assert epsilon_of_person([(mechanism, 0)], DELTA) == 0


def test_without_sampling_it_is_noise_that_is_so_many_times_less():
    assert epsilon_of_person([(GaussianCounts(noise_std=12.0), 4)], DELTA) == pytest.approx(
        epsilon([GaussianCounts(noise_std=3.0)], DELTA), rel=0.01)


def test_a_person_on_both_sides_pays_for_the_dearest_division_where_rows_pay_apart():
    trained, held_out = [sgd(0.5, 6.0, 10)] * 2, [GaussianCounts(noise_std=8.0)] * 3
    together, apart = (dearest_person(trained, held_out, (), DELTA, 2, apart=apart) for apart in (False, True))
    divisions = [epsilon_of_person([*((one, k) for one in trained), *((one, 2 - k) for one in held_out)], DELTA)
                 for k in range(3)]
    assert apart == max(divisions) < together
    of_all = [GaussianCounts(noise_std=5.0)]
    assert dearest_person((), (), of_all, DELTA, 2, apart=True) == epsilon_of_person([(of_all[0], 2)], DELTA)


def test_what_is_not_noised_is_infinite_and_nonsense_is_refused():
    assert math.isinf(epsilon_of_person([(NoMechanism(), 1)], DELTA))
    for rows in (-1, 51):
        with pytest.raises(PrivacyError, match="rows of one person"):
            epsilon_of_person([(sgd(0.1, 1.0, 1), rows)], DELTA)
    with pytest.raises(PrivacyError, match="delta_dp"):
        epsilon_of_person([(sgd(0.1, 1.0, 1), 1)], 1e-12)


def test_what_is_shown_is_never_less_than_it_is():
    assert [upward(value, 2) for value in (38.88, 38.8801, 5.0, 0.0, math.inf)] == ["38.88", "38.89", "5.00", "0.00", "inf"]
