"""Laws and oracles of the accountant."""

import math
import random

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from fedround.errors import ContractError, PrivacyError
from fedround.privacy import accounting, calibration
from fedround.privacy.accounting import epsilon
from fedround.privacy.calibration import calibrate, mu_squared
from fedround.privacy.spec import DpSgd, GaussianCounts, NoMechanism, RecordPrivacy, SitePrivacy
from fedround.rounds.campaign import beside
from fedround.statistics import LocalEvaluation

DELTA = 1e-5


def sgd(rate: float, noise: float, steps: int) -> DpSgd:
    return DpSgd(noise_multiplier=noise, clip_norm=1.0, sampling_rate=rate, steps=steps)


def counts(std: float) -> GaussianCounts:
    return GaussianCounts(noise_std=std)


def closed_form(noise: float, steps: int, delta_dp: float) -> float:
    """The analytic Gaussian mechanism (Balle and Wang 2018) at noise / sqrt(steps), by bisection."""
    mu = math.sqrt(steps) / noise

    def delta(eps: float) -> float:
        def tail(x: float) -> float:
            return math.erfc(x / math.sqrt(2)) / 2
        return tail(eps / mu - mu / 2) - math.exp(eps) * tail(eps / mu + mu / 2)

    low, high = 0.0, 200.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if delta(middle) > delta_dp else (low, middle)
    return high


# -- oracles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "noise", "steps", "expected"), [
    (1.0, 1.1, 20, 24.9225),
    (1.0, 4.0, 20, 4.9833),
    (0.1, 1.1, 100, 5.9127),
    (0.032, 1.1, 640, 4.3494),
    (0.5, 2.0, 50, 9.4736),
    (0.01, 1.0, 1000, 1.8282),
])
def test_published_values_are_met_from_above_within_half_a_percent(rate, noise, steps, expected):
    assert expected - 1e-4 <= epsilon([sgd(rate, noise, steps)], DELTA) <= expected * 1.005


def test_noise_for_epsilon_5_over_20_full_batches():
    privacy = RecordPrivacy(epsilon=5.0, delta_dp=DELTA, rounds=20)
    # The counts are noised so much that they cost nothing: 3.98856 rounded up.
    assert calibrate(privacy, 1.0, 1, [counts(10_000.0)] * 21) == 3.989


@settings(max_examples=15)
@example(noise=43.0, steps=1, delta_dp=0.0078125)
@given(noise=st.floats(0.5, 50), steps=st.integers(1, 2000), delta_dp=st.floats(1e-9, 1e-2))
def test_full_batches_cost_what_the_closed_form_says_and_never_less(noise, steps, delta_dp):
    exact = closed_form(noise, steps, delta_dp)
    total = epsilon([sgd(1.0, noise, steps)], delta_dp)
    assume(exact < 190)     # the bisection's end
    assert exact - 1e-12 <= total <= exact * 1.005 + 1e-4      # an epsilon may be smaller than the grid's cell


@pytest.mark.parametrize(("noise", "steps", "rounds"), [(4.0, 10, 2), (40.0, 10, 200), (100.0, 64, 300),
                                                         (300.0, 100, 1000)])
@pytest.mark.parametrize("delta_dp", [1e-5, 1e-8])
def test_composing_by_fft_stays_above_the_closed_form(noise, steps, rounds, delta_dp):
    """Full batches take a short cut in `epsilon`; here they take the way of the sampled ones."""
    pld = accounting._pld(noise, 1.0, steps, rounds, accounting._grid((), noise ** -2))
    exact = closed_form(noise, steps * rounds, delta_dp)
    assert exact <= pld.get_epsilon_for_delta(delta_dp) <= exact * 1.005


def test_near_the_smallest_delta_the_bound_is_two_percent():
    """1.6 % at 1e-10 and 100,000 steps: more than the half percent that holds down to 1e-8."""
    steps, mu2 = 100_000, mu_squared(0.3, 1e-10)
    total = epsilon([sgd(1 - 1e-12, math.sqrt(steps / mu2), steps)], 1e-10)
    assert 0.3 * 1.005 < total <= 0.3 * 1.02


@pytest.mark.parametrize("noise", [2.1, 3.3, 5.7, 8.9])
def test_totals_are_rounded_up_to_a_millionth(noise):
    grid = accounting._grid((((noise, 0.3, 10, False), 1),), 0.0)
    exact = accounting._pld(noise, 0.3, 10, 1, grid).get_epsilon_for_delta(DELTA)
    total = epsilon([sgd(0.3, noise, 10)], DELTA)
    assert exact <= total < exact + 1.1e-6
    assert total == round(total, 6)


@pytest.mark.parametrize("mechanisms", [
    [sgd(0.33, 5.5, 10)] * 20 + [counts(20.0)] * 21,
    [sgd(0.1, 10.0, 1000)],
    [sgd(0.1, 100.0, 1000)],
    [sgd(0.005, 2.0, 20_000)],
    [sgd(0.01, 1.0, 100)] * 3 + [sgd(0.4, 30.0, 50), counts(5.0)],
], ids=["campaign", "little", "very little", "many steps", "mixture"])
def test_the_grid_costs_at_most_half_a_percent(mechanisms, monkeypatch):
    total = epsilon(mechanisms, DELTA)
    grid = accounting._grid
    monkeypatch.setattr(accounting, "_grid", lambda *args: grid(*args) / 10)
    accounting.total.cache_clear()
    fine = epsilon(mechanisms, DELTA)
    accounting.total.cache_clear()
    assert fine <= total <= fine * 1.005


# -- laws --------------------------------------------------------------------------------------------------------------

RATES = st.floats(0.01, 0.9)
NOISES = st.floats(0.8, 20)
STEPS = st.integers(1, 200)


@settings(max_examples=20)
@given(rate=RATES, noise=NOISES, steps=STEPS, factor=st.floats(1.1, 3))
def test_more_noise_fewer_rows_fewer_steps_and_a_larger_delta_cost_less(rate, noise, steps, factor):
    total = epsilon([sgd(rate, noise, steps)], DELTA)
    assert epsilon([sgd(rate, noise * factor, steps)], DELTA) <= total
    assert epsilon([sgd(rate / factor, noise, steps)], DELTA) <= total
    assert epsilon([sgd(rate, noise, steps)], DELTA * factor) <= total
    assert epsilon([sgd(rate, noise, steps + 10)], DELTA) >= total


MECHANISMS = st.lists(st.one_of(
    st.builds(sgd, st.sampled_from([0.05, 0.33, 1.0]), st.sampled_from([1.5, 4.0]), st.sampled_from([1, 10])),
    st.builds(counts, st.sampled_from([5.0, 20.0]))), min_size=1, max_size=12)


@settings(max_examples=25)
@given(mechanisms=MECHANISMS, random_=st.randoms(use_true_random=False))
def test_order_is_irrelevant_to_the_last_bit(mechanisms, random_: random.Random):
    shuffled = random_.sample(mechanisms, len(mechanisms))
    assert epsilon(shuffled, DELTA) == epsilon(mechanisms, DELTA)


def test_what_was_asked_before_is_irrelevant():
    campaign = [counts(20.0)] + [sgd(0.33, 5.5, 10)] * 13
    stepwise = [epsilon(campaign[:rounds], DELTA) for rounds in range(1, 15)]
    accounting.total.cache_clear()
    accounting._pld.cache_clear()
    assert epsilon(campaign, DELTA) == stepwise[-1]


@settings(max_examples=15)
@given(rate=RATES, noise=NOISES, steps=st.integers(2, 60), cut=st.integers(1, 59))
def test_splitting_steps_over_rounds_changes_nothing(rate, noise, steps, cut):
    cut = min(cut, steps - 1)
    whole = epsilon([sgd(rate, noise, steps)], DELTA)
    parts = epsilon([sgd(rate, noise, cut), sgd(rate, noise, steps - cut)], DELTA)
    assert parts == pytest.approx(whole, abs=2e-6)


def test_counts_and_full_batches_are_the_same_gaussian():
    assert epsilon([counts(4.0)] * 20, DELTA) == epsilon([sgd(1.0, 4.0, 20)], DELTA)


def test_nothing_costs_nothing_and_no_noise_costs_everything():
    assert epsilon([], DELTA) == 0.0
    assert epsilon([counts(20.0), NoMechanism()], DELTA) == math.inf


@pytest.mark.parametrize("mechanism", [sgd(1.0, 1e-6, 1), sgd(0.5, 1e-6, 10_000), sgd(0.5, 0.1, 10_000), counts(1e-6),
                                       sgd(0.5, 1e-6, 1)],
                         ids=str)
def test_hardly_any_noise_is_infinite_at_once_instead_of_filling_the_memory(mechanism):
    assert epsilon([mechanism], DELTA) == math.inf


@pytest.mark.parametrize("mechanism", [sgd(0.5, 1e6, 100), sgd(1e-9, 1.0, 100), sgd(0.5, 1e6, 1), counts(1e6)],
                         ids=str)
def test_next_to_nothing_costs_next_to_nothing(mechanism):
    assert 0.0 <= epsilon([mechanism], DELTA) <= 1e-3


def test_a_round_more_is_one_composition_more():
    """What makes a call cheap: after the first round, one new PLD for the campaign (the counts are one Gaussian)."""
    accounting._pld.cache_clear()
    campaign = [sgd(0.37, 4.9, 10), counts(20.0)]
    epsilon(campaign, DELTA)
    for rounds in range(2, 21):
        before = accounting._pld.cache_info().misses
        epsilon(campaign * rounds, DELTA)
        assert accounting._pld.cache_info().misses - before == 2


@pytest.mark.parametrize("delta_dp", [0.0, 1e-12, 1.0, -1e-5, math.nan])
def test_a_delta_that_nobody_can_vouch_for_is_refused(delta_dp):
    with pytest.raises(PrivacyError, match="delta_dp"):
        epsilon([counts(20.0)], delta_dp)


# -- calibration -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "steps", "rounds", "target", "std"), [
    (0.334, 10, 20, 5.0, 20.0),
    (0.0277, 10, 20, 5.0, 20.0),
    (1.0, 1, 5, 1.0, 100.0),
    (0.05, 10, 100, 1.0, 50.0),
])
def test_a_calibrated_campaign_fits_and_a_thousandth_less_noise_does_not(rate, steps, rounds, target, std):
    privacy = RecordPrivacy(epsilon=target, delta_dp=DELTA, rounds=rounds)
    noise = calibrate(privacy, rate, steps, [counts(std)] * (rounds + 1))
    assert noise == round(noise, 3)

    def campaign(noise: float) -> float:
        return epsilon([sgd(rate, noise, steps)] * rounds + [counts(std)] * (rounds + 1), DELTA)

    assert campaign(noise) <= target < campaign(round(noise - 0.001, 3))


def test_every_prefix_of_a_calibrated_campaign_fits():
    """A ledger that charges round by round never runs dry before the last one."""
    privacy = RecordPrivacy(epsilon=5.0, delta_dp=DELTA, rounds=20)
    noise = calibrate(privacy, 0.33, 10, [counts(20.0)] * 21)
    spent = [epsilon([sgd(0.33, noise, 10)] * k + [counts(20.0)] * (k + 1), DELTA) for k in range(1, 21)]
    assert spent == sorted(spent)
    assert 4.95 < spent[-1] <= 5.0


@pytest.mark.parametrize(("std", "rounds", "message"), [
    (0.0, 20, "noise_std is 0"),
    (1.0, 20, "evaluations, groups and drift alone"),
    (3.989, 19, "no noise multiplier up to 1000"),
])
def test_an_impossible_budget_says_what_to_change(std, rounds, message):
    privacy = RecordPrivacy(epsilon=5.0, delta_dp=DELTA, rounds=rounds)
    with pytest.raises(ContractError, match=message):
        calibrate(privacy, 1.0, 10_000, beside(privacy, LocalEvaluation(noise_std=std)))


def test_what_a_campaign_releases_beside_its_updates_are_counts_of_every_model_and_under_the_unit_site_nothing():
    record = RecordPrivacy(epsilon=5.0, delta_dp=DELTA, rounds=7)
    site = SitePrivacy(epsilon=5.0, delta_dp=DELTA, rounds=7)
    evaluation = LocalEvaluation(noise_std=20.0)
    assert beside(record, evaluation) == (counts(20.0),) * 8
    assert beside(site, evaluation) == beside(site, LocalEvaluation(noise_std=0.0)) == ()


@given(st.integers(1, 10 ** 6 - 1), st.integers(1, 10 ** 6), st.sampled_from([0.3, 1.0, 40.0]))
def test_the_search_takes_few_trials_whatever_the_cost_looks_like_between_its_ends(least, first, steepness):
    """A trial may take seconds. From `least` on all is well at once; before it the cost is flat, or steep."""
    trials = []

    def price(mechanisms, _delta_dp, _unit):
        if not mechanisms:
            return 0.0
        at = round(1000 * mechanisms[0].noise_multiplier)
        trials.append(at)
        return 0.9999 if at >= least else 1 + (least / at) ** steepness

    privacy = RecordPrivacy(epsilon=1.0, delta_dp=DELTA, rounds=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "epsilon", price)
        found = calibration.smallest_noise(privacy, lambda noise: sgd(0.3, noise, 1), (), lambda _: first / 1000)
    assert found == least / 1000
    assert len(trials) <= 2 * math.log2(10 ** 6) + 5, trials


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, math.nan])
def test_a_sampling_rate_is_a_probability(rate):
    with pytest.raises(ContractError, match="sampling rate"):
        calibrate(RecordPrivacy(epsilon=5.0, delta_dp=DELTA, rounds=20), rate, 10, [counts(20.0)] * 21)
