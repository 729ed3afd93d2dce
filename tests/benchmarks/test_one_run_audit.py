"""The one-run audit: its formula, on which side it errs, and that it tells an honest site from a broken one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from benchmarks.canaries import PIXELS, audit_run, canary_recipe, rows_with
from benchmarks.one_run_audit import (
    Audit,
    Sampled,
    audit,
    epsilon_of_gaussian,
    gaussian_bound,
    is_possible,
    lower_bound,
    p_value,
    trade_off,
)
from fedround.learning.batch import Batch
from fedround.learning.gradients import gradient_sum
from fedround.learning.objective import Objective
from fedround.privacy.accounting import epsilon
from fedround.privacy.spec import DpSgd, GaussianCounts


def paper(m: int, r: int, v: int, eps: float, delta: float) -> float:
    """Appendix D of the paper, line by line."""
    q = 1 / (1 + np.exp(-eps))
    beta, alpha, total = binom.sf(v - 1, r, q), 0.0, 0.0
    for i in range(1, v + 1):
        total += binom.pmf(v - i, r, q)
        if total > i * alpha:
            alpha = total / i
    return min(beta + alpha * delta * 2 * m, 1.0)


@settings(max_examples=60)
@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 40), st.floats(0, 8), st.sampled_from([0.0, 1e-5, 1e-3]))
def test_the_p_value_is_the_papers(guesses, right, others, epsilon, delta_dp):
    right = min(right, guesses)
    ours = p_value(epsilon, delta_dp, guesses + others, guesses, right)
    assert ours == pytest.approx(paper(guesses + others, guesses, right, epsilon, delta_dp), rel=1e-9, abs=1e-12)


def test_all_right_without_delta_is_the_binomials_own_bound():
    """100 of 100: (e^eps / (1 + e^eps))^100 = 0.05."""
    chance = 0.05 ** 0.01
    assert lower_bound(0.0, 1000, 100, 100, 0.05) == pytest.approx(np.log(chance / (1 - chance)), abs=1e-3)


def test_half_right_tells_nothing():
    assert lower_bound(1e-5, 1000, 1000, 500, 0.05) == 0


@settings(max_examples=40)
@given(st.integers(1, 200), st.data())
def test_more_right_guesses_never_lower_the_bound_and_delta_never_raises_it(guesses, data):
    right = data.draw(st.integers(1, guesses))
    bound = lower_bound(0.0, guesses, guesses, right, 0.05)
    assert lower_bound(0.0, guesses, guesses, right - 1, 0.05) <= bound + 1e-4
    assert lower_bound(1e-3, guesses, guesses, right, 0.05) <= bound + 1e-4


def test_randomised_response_is_rarely_accused_and_its_epsilon_nearly_found():
    """Every bit is told rightly with e^1 / (1 + e^1): epsilon is exactly 1."""
    bounds = []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        present = generator.random(2000) < 0.5
        told = np.where(generator.random(2000) < 1 / (1 + np.exp(-1)), present, ~present)
        bounds.append(audit(told + 1e-6 * generator.random(2000), present, 0.0, 0.95, (0.2, 0.4)).epsilon_at_least)
    assert np.mean(np.array(bounds) > 1) <= 0.05
    assert np.median(bounds) > 0.6


def gaussian_audits(mu: float, canaries: int, times: int) -> list[Audit]:
    """Honest noise: every canary's score is N(mu, 1) if it is there, N(0, 1) if not."""
    found = []
    for seed in range(times):
        generator = np.random.default_rng(seed)
        present = generator.random(canaries) < 0.5
        found.append(audit(generator.normal(size=canaries) + mu * present, present, 1e-5, 0.95))
    return found


@pytest.mark.parametrize("mu", [0.3, 1.1, 2.0])
def test_gaussian_noise_is_rarely_accused_and_its_epsilon_is_found_better_than_any_mechanisms(mu: float):
    truth, found = epsilon_of_gaussian(mu, 1e-5), gaussian_audits(mu, 1000, 20)
    assert np.mean([one.gaussian_at_least > truth for one in found]) <= 0.05
    assert np.median([one.gaussian_at_least for one in found]) >= np.median([one.epsilon_at_least for one in found])
    assert np.median([one.gaussian_at_least for one in found]) > 0.4 * truth * (mu > 1)


@settings(max_examples=30)
@given(st.integers(2, 300), st.integers(0, 300), st.data())
def test_more_right_guesses_refute_more_gaussians_and_a_louder_one_explains_more(guesses, others, data):
    right = data.draw(st.integers(1, guesses))
    bound = gaussian_bound(1e-5, guesses + others, guesses, right, 0.05)
    assert gaussian_bound(1e-5, guesses + others, guesses, right - 1, 0.05) <= bound + 1e-2
    possible = [is_possible(mu, guesses + others, guesses, right, 0.05) for mu in (0.0, 0.5, 1.0, 2.0, 20.0)]
    assert possible == sorted(possible)


def test_epsilon_of_a_gaussian_is_the_accountants():
    assert epsilon_of_gaussian(0.0, 1e-5) == 0
    for noise in (0.5, 1.0, 4.0):
        assert epsilon_of_gaussian(1 / noise, 1e-5) == pytest.approx(
            epsilon([GaussianCounts(noise_std=noise)], 1e-5), rel=6e-3)


def test_the_trade_off_of_one_step_on_all_rows_is_the_gaussians():
    wrong = trade_off(1 / 1.3, Sampled(1.0, 1))
    for chance in (0.02, 0.3, 0.5, 0.8, 0.99):
        assert wrong(chance) == pytest.approx(norm.cdf(norm.ppf(chance) - 1.3), abs=2e-3)


def test_sampled_steps_are_rarely_accused_and_a_third_of_their_noise_is_found_out():
    """Ten steps on a fifth of the rows: what a canary adds is a binomial number of steps, under the noise of all of them."""
    how, noise, generator = Sampled(0.2, 10), 0.9, np.random.default_rng(3)
    truth = epsilon([DpSgd(noise_multiplier=noise, clip_norm=1.0, sampling_rate=0.2, steps=10)], 1e-5)
    found = {}
    for share in (1.0, 1 / 3):
        found[share] = []
        for _ in range(4):
            present = generator.random(2000) < 0.5
            score = generator.binomial(10, 0.2, 2000) * present + generator.normal(size=2000) * share * noise * 10 ** 0.5
            found[share].append(audit(score, present, 1e-5, 0.95, sampled=how).sampled_at_least)
    assert max(found[1.0]) <= truth
    assert min(found[1 / 3]) > 1.5 * max(found[1.0])


def test_a_canary_that_is_left_out_has_no_gradient_and_one_that_is_in_has_its_own_coordinate():
    present = np.array([True, False, True])
    rows, recipe = rows_with(present), canary_recipe(3)
    model = recipe.build_model()
    features = torch.from_numpy(rows.inputs["x"][-3:])
    total = gradient_sum(Objective(model), dict(model.named_parameters()), Batch({"x": features}, {"y": torch.ones(3)}))
    assert np.array_equal(total[PIXELS:] != 0, present)
    assert not total[:PIXELS].any()


def test_the_audit_accuses_a_site_that_adds_a_third_of_its_noise_and_not_an_honest_one():
    """The product's own steps. Seven more seeds gave bounds of 1.4 to 2.0 for it, and of 0.1 to 0.4 for the other."""
    torch.set_num_threads(1)
    honest = audit_run(1.0, canaries=1000, share=1.0, seed=0)
    broken = audit_run(1.0, canaries=1000, share=1.0, seed=0, too_little=3.0)
    assert max(honest.epsilon_at_least, honest.gaussian_at_least) <= 0.8
    assert broken.gaussian_at_least >= 1.2
