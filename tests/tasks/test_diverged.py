"""A model that says no number any more: the round is told without a metric, and the run goes on."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tasks.evaluate import evaluate, score_statistic
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


def test_a_run_whose_model_has_diverged_goes_on_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """One such model, which a member may bring about, once made every later plan of the run impossible."""
    federation = small_federation.make(tmp_path, recipe=DIVERGES)
    commit = federation.round()
    with caplog.at_level(logging.WARNING):
        assert evaluate(federation.coordinator, commit) is None
    assert "the model says no finite number of 400 rows of 400: it has diverged" in caplog.text
    assert score_statistic(federation.coordinator, commit).edges == ()
    second = federation.round()
    assert second.round == 2
    assert len(federation.proofs()) == 3
