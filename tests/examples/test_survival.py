"""The survival example: its rows are encoded as its benchmark has them, and a few rounds order persons nearly as Cox does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.tasks_cases import cox, flchain
from fedround.agreement import Agreement
from fedround.learning.encoding import encode
from fedround.learning.evaluate import scores
from fedround.learning.recipe import load_recipe
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.partition import Iid, deal
from fedround.simulation.sites import Site
from infra.settings import load_toml

HERE = Path(__file__).parents[2] / "fedround_examples" / "survival"


def test_thirty_rounds_at_epsilon_five_order_persons_nearly_as_a_cox_regression_of_all_rows():
    torch.set_num_threads(1)
    recipe = load_recipe(HERE / "recipe.py")
    rows = encode(pd.read_parquet(HERE / "flchain.parquet"), recipe, lambda: load_recipe(HERE / "recipe.py"))
    assert np.allclose(rows.inputs["x"], flchain().inputs["x"], atol=1e-6)
    order = np.random.default_rng(0).permutation(len(rows))
    tested, others = rows.at(order[:2000]), rows.at(order[2000:])
    parts = deal(Iid(), others, 5, 0, task=recipe.task)
    sites = {name: Site(others.at(places[200:]), others.at(places[:200])) for name, places in parts.items()}
    agreed = load_toml(Agreement, HERE / "settings.toml")
    done = simulate(agreed, recipe, sites, rounds=30, chance=Seeded(0), stacked=True, judge_every=30)
    reached = recipe.task.worth(scores(recipe, done.model, tested))
    assert reached > cox(others, tested) - 0.02 > 0.7
