"""A model that says no number any more: the round is told without a metric, and the run goes on."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from torch import nn
from typer.testing import CliRunner

from fedround.agreement import Agreement
from fedround.errors import DivergedError
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe
from fedround.learning.tasks import Regress
from fedround.simulation import compare
from fedround.simulation.chance import Seeded
from fedround.simulation.sites import Site
from fedround_cli.main import app
from tasks.bundle import build
from tasks.contribution import contributed, settle
from tasks.evaluate import evaluate, score_statistic
from tasks.explain import explained
from tests import small_federation
from tests.small_federation import RECIPE

DIVERGES = RECIPE.replace("from torch import nn", "import torch\nfrom torch import nn").replace(
    '    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))', '''    return Model()


class Model(nn.Module):
    """As it begins, it says numbers; after any step that moves its last bias, none."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x):
        return self.layer(x) + 0.0 * torch.sqrt(1e-12 - self.layer.bias.square().sum())''')

AGREED = Agreement(name="small", quorum=1, privacy={"unit": "none"}, training={"local_steps": 1, "learning_rate": 0.1},
                   aggregation={"rule": {"name": "weighted_mean"}})


def test_a_run_whose_model_has_diverged_goes_on_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """One such model, which a member may bring about, once made every later plan of the run impossible."""
    federation = small_federation.make(tmp_path, recipe=DIVERGES)
    commit = federation.round()
    with caplog.at_level(logging.WARNING):
        assert evaluate(federation.coordinator, commit) is None
    assert "the model says no finite number for 400 of 400 rows: it has diverged" in caplog.text
    assert score_statistic(federation.coordinator, commit).edges == ()
    second = federation.round()
    assert second.round == 2
    assert len(federation.proofs()) == 3


def test_nothing_is_made_or_said_of_its_numbers_and_no_other_round_waits_for_it(
        tmp_path: Path, caplog: pytest.LogCaptureFixture):
    federation = small_federation.make(tmp_path, recipe=DIVERGES, incentive={"points": 900.0, "floor": 0.1})
    federation.round()
    coordinator, run = federation.coordinator, "spring"
    for made in (lambda: build(coordinator, run, 1), lambda: explained(coordinator, run, 1),
                 lambda: contributed(coordinator, run, 1)):
        with pytest.raises(DivergedError, match="no finite number for"):
            made()
    with caplog.at_level(logging.WARNING):
        assert settle(coordinator, run) == ""
    assert "round 1 of run 'spring': what its sites added cannot be said" in caplog.text
    told = CliRunner().invoke(app, ["models", "contribution", run, "-c", str(federation.coordinator.folder)])
    assert told.exit_code == 1
    assert "cannot be said: the model has diverged" in " ".join(told.output.split())


def test_a_rival_that_has_diverged_is_no_best_one(monkeypatch: pytest.MonkeyPatch):
    """R² may be negative: with 0 for want of a number, a model that says none once was better than one that says some."""
    recipe = Recipe("line", "0" * 64, lambda: nn.Linear(2, 1, bias=False), lambda rows: rows, Regress(bounds=(-5, 5)))
    x_N2 = np.random.default_rng(1).normal(size=(60, 2)).astype(np.float32)
    rows = Examples(x_N2, x_N2[:, 0])
    bad, gone = ({"weight": np.array([[number, 0.0]], np.float32)} for number in (-4.0, np.nan))
    monkeypatch.setattr(compare, "_trained", lambda *how: bad if how[-1] == 1.0 else gone)
    assert compare.alone(AGREED, recipe, Site(rows, rows), 1, Seeded(0)) is bad
