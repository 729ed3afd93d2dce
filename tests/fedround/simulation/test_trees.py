"""Simulated campaigns of trees: settings that are compared, and baselines."""

from __future__ import annotations

import numpy as np
import pytest

from fedround.agreement import Agreement
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe
from fedround.learning.tasks import CLASSIFY
from fedround.learning.trees.declared import builder_of
from fedround.learning.trees.spec import LEAVES, Axis, Trees
from fedround.simulation.chance import Seeded
from fedround.simulation.compare import SLOWER, alone, centralised
from fedround.simulation.sites import Site
from fedround.simulation.tuning import halving

TREES = Trees(rounds=2, per_round=8, depth=3, learning_rate=0.2, l2=0.02, axes=(Axis(low=-3, high=3),) * 2)
RECIPE = Recipe("trees", "0" * 64, builder_of(TREES, CLASSIFY), lambda rows: rows, trees=TREES)
AGREED = Agreement(name="small", quorum=2, privacy={"unit": "record", "epsilon": 8.0, "delta_dp": 1e-5, "rounds": 2},
                   training=TREES, aggregation={"rule": {"name": "weighted_mean"}})


def rows(seed: int, count: int = 300) -> Examples:
    generator = np.random.default_rng(seed)
    x_N2 = generator.normal(size=(count, 2)).astype(np.float32)
    return Examples(x_N2, (x_N2[:, 0] - x_N2[:, 1] + generator.normal(size=count) > 0).astype(np.int64))


SITES = {name: Site(rows(seed), rows(seed + 50, 100)) for seed, name in enumerate(("north", "east", "south"))}


def auc(model: dict) -> float:
    return CLASSIFY.metrics(scores(RECIPE, model, rows(99, 1000))).auc


def test_settings_of_trees_are_compared_also_those_that_change_their_form():
    found = halving({f"depth {depth}": AGREED.model_copy(update={"training": TREES.model_copy(update={"depth": depth})})
                     for depth in (1, 3)}, RECIPE, SITES, rounds=2, seed=0)
    leaves = {trial.name: trial.result.model[LEAVES].shape[1] for trial in found.trials}
    assert leaves == {"depth 1": 2, "depth 3": 8}
    assert found.best == "depth 3"
    assert all(trial.score > 0.65 for trial in found.trials)


def test_pooled_training_and_a_site_alone_try_smaller_l2_and_take_what_is_best_on_their_own_rows():
    """A campaign of the recipe's own settings is one of the three; without rows held out it is the only one."""
    pooled = centralised(AGREED, RECIPE, SITES, 2, Seeded(0), 3)
    own = alone(AGREED, RECIPE, SITES["north"], 2, Seeded(0))
    only = alone(AGREED, RECIPE, Site(SITES["north"].train), 2, Seeded(0))
    assert auc(pooled) > 0.8
    assert auc(own) > 0.7
    tried = [alone(AGREED.model_copy(update={"training": TREES.model_copy(update={"l2": TREES.l2 * share})}), RECIPE,
                   Site(SITES["north"].train), 2, Seeded(0)) for share in SLOWER]
    assert only[LEAVES] == pytest.approx(tried[0][LEAVES])
    assert any(np.array_equal(own[LEAVES], one[LEAVES]) for one in tried)
