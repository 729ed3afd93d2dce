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


def test_gbsg2_is_the_published_table_a_cox_regression_of_it_has_the_known_coefficients():
    import statsmodels.api as sm

    rows = pd.read_csv(HERE / "gbsg2.csv")
    grade = rows["tgrade"].str.len() - 1                # orthogonal contrasts, as R fits an ordered factor
    x = np.column_stack([rows["horTh"] == "yes", rows["age"], rows["menostat"] == "Post", rows["tsize"],
                         (grade - 1) / 2 ** 0.5, np.where(grade == 1, -2, 1) / 6 ** 0.5,
                         rows["pnodes"], rows["progrec"], rows["estrec"]]).astype(float)
    fitted = sm.PHReg(rows["time"], x, status=rows["cens"], ties="efron").fit()
    assert (len(rows), rows["cens"].sum()) == (686, 299)
    assert np.allclose(fitted.params, [-0.3462784, -0.0094592, 0.2584448, 0.0077961, 0.5512988, -0.2010905, 0.0487886,
                                       -0.0022172, 0.0001973], atol=1e-6)
