"""Attacks on a released model: they find one that knows its rows by heart, and accuse none that does not."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from benchmarks import attribute as module
from benchmarks.attribute import Known, attribute, inversion
from benchmarks.audited_site import Audited, recipe_of
from fedround.learning.examples import Examples
from fedround.learning.spec import LocalTraining


def rows() -> Examples:
    """Forty rows; the last feature is a coin that says nothing of the label, nor of the other features."""
    generator = np.random.default_rng(4)
    x_NF = generator.normal(size=(40, 6)).astype(np.float32)
    x_NF[:, -1] = 3 * generator.integers(0, 2, 40)
    return Examples(x_NF, generator.integers(0, 2, 40))


def site(steps: int, epsilon: float | None = None) -> Audited:
    training = LocalTraining(local_steps=steps, batch_size=40, learning_rate=1.0)
    recipe = recipe_of("wide", lambda: nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 1)))
    return Audited(recipe, training, 2, epsilon)


def test_a_model_that_knows_its_rows_by_heart_is_found_and_a_noised_one_is_not():
    """Labels are coins, too: whoever fits them has learnt rows and nothing else."""
    torch.set_num_threads(1)
    by_heart = attribute(site(400), rows(), 5, runs=16, seed=0)
    assert by_heart.advantage > 3 * by_heart.error
    noised = attribute(site(5, epsilon=1.0), rows(), 5, runs=16, seed=0)
    assert noised.advantage < by_heart.advantage / 2
    assert abs(noised.advantage) < 3 * noised.error


def test_inversion_starts_from_the_mean_and_stays_within_what_is_hidden():
    torch.set_num_threads(1)
    pixels = Examples(np.abs(rows().inputs["x"]).clip(0, 1), rows().targets["y"])
    hidden_F = np.array([False, False, False, True, True, True])
    model = {name: value.detach().numpy() for name, value in site(1).recipe.build_model().named_parameters()}
    still = module._searched(site(1).recipe, model, pixels, hidden_F, steps=0)
    mean_F = pixels.inputs["x"].mean(0)
    assert np.allclose(still, ((pixels.inputs["x"] - mean_F)[:, hidden_F] ** 2).mean(1), atol=1e-6)
    found = inversion(site(2), pixels, hidden_F, runs=3, seed=0)
    assert 0 < found.others < 1


def test_what_an_attack_is_worth_is_its_gain_and_chance_is_not_found():
    assert Known(0.5, 0.4, 0.1, 0.05).is_found
    assert not Known(0.5, 0.42, 0.08, 0.05).is_found
    assert Known(0.5, 0.4, 0.1, 0.05).power == 2 * 1.645 * 0.05
