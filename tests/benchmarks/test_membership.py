"""Membership inference: what it must find, what it must not, and the exact likelihood ratio on a toy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm

from benchmarks.audited_site import Audited, recipe_of
from benchmarks.membership import _gradient_of_each_row, attack, leak, lira
from fedround.learning.batch import batch_of
from fedround.learning.examples import Examples
from fedround.learning.gradients import gradient_sum
from fedround.learning.objective import Objective
from fedround.learning.recipe import initial_tensors
from fedround.learning.spec import LocalTraining


def toy(shift: float, runs: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """A row's statistic is N(its own mean, 1), and `shift` more as a member."""
    generator = np.random.default_rng(0)
    member = generator.random((runs, rows)) < 0.5
    return 5 * generator.normal(size=rows) + shift * member + generator.normal(size=member.shape), member


def test_lira_reaches_what_is_possible_on_gaussians_where_a_common_threshold_fails():
    """Best possible: AUC = Phi(shift / sqrt 2), advantage = 2 Phi(shift / 2) - 1."""
    statistic, member = toy(2.0, 200, 100)
    found = leak(lira(statistic, member), member)
    assert found.auc == pytest.approx(norm.cdf(2 / np.sqrt(2)), abs=0.015)
    assert found.advantage == pytest.approx(2 * norm.cdf(1) - 1, abs=0.02)
    assert leak(statistic, member).advantage < 0.3


def test_where_nothing_leaks_nothing_is_found():
    statistic, member = toy(0.0, 200, 100)
    found = leak(lira(statistic, member), member)
    assert found.advantage < 0.03          # the best threshold with hindsight gains a little on nothing
    assert found.auc == pytest.approx(0.5, abs=0.02)
    assert found.tpr_at_1_fpr < 0.02


def test_a_runs_own_answer_does_not_enter_its_shadow_models():
    """Two loops, the slow twin."""
    statistic, member = toy(1.0, 12, 6)
    fast, slow = lira(statistic, member), np.zeros_like(statistic)
    spread = {side: np.concatenate([statistic[member[:, row] == side, row] - statistic[member[:, row] == side, row].mean()
                                    for row in range(6)]) for side in (True, False)}
    variance = {side: (part ** 2).sum() / (len(part) - 6) for side, part in spread.items()}
    for run in range(12):
        others = np.arange(12) != run
        for row in range(6):
            density = {side: norm.logpdf(statistic[run, row], statistic[others & (member[:, row] == side), row].mean(),
                                         variance[side] ** 0.5) for side in (True, False)}
            slow[run, row] = density[True] - density[False]
    assert np.allclose(fast, slow)


def test_too_few_runs_are_refused():
    with pytest.raises(ValueError, match="add runs"):
        lira(np.zeros((2, 1)), np.array([[True], [False]]))


def test_a_perfect_attack_has_advantage_one():
    assert leak(np.array([0.0, 1.0]), np.array([False, True])).advantage == 1


def test_the_auditors_gradients_add_up_to_the_products():
    recipe, rows = site().recipe, noise_rows(9)
    model = recipe.build_model()
    tensors = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    total = gradient_sum(Objective(model), dict(model.named_parameters()), batch_of(rows))
    assert np.allclose(_gradient_of_each_row(recipe, tensors, rows).sum(axis=0), total, atol=1e-5)


def test_a_site_that_learns_noise_by_heart_is_seen_through_and_a_private_one_is_not():
    torch.set_num_threads(1)
    plain, private = (attack(site(epsilon), noise_rows(40), runs=12, seed=0) for epsilon in (None, 1.0))
    assert plain["LiRA on the last model"].auc > 0.8
    assert plain["LiRA on all updates"].auc > 0.8
    assert max(found.auc for found in private.values()) < 0.65


def site(epsilon: float | None = None) -> Audited:
    from torch import nn

    recipe = recipe_of("toy", lambda: nn.Sequential(nn.Linear(30, 8), nn.Tanh(), nn.Linear(8, 1)))
    assert initial_tensors(recipe, 0)
    return Audited(recipe, LocalTraining(local_steps=20, batch_size=40, learning_rate=0.5), rounds=2, epsilon=epsilon)


def noise_rows(count: int) -> Examples:
    """Labels that nothing but memory can tell."""
    generator = np.random.default_rng(1)
    return Examples(generator.normal(size=(count, 30)).astype(np.float32), generator.integers(0, 2, count))
