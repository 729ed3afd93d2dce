"""The file for XGBoost says the same trees as the model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fedround.learning.examples import INPUT
from fedround.learning.tasks import CLASSIFY, Count, Regress, Survive
from fedround.learning.trees.losses import outputs_of
from fedround.learning.trees.outputs import outputs
from fedround.learning.trees.spec import GROWN, LEAVES
from fedround.learning.trees.structure import splits
from fedround.learning.trees.xgboost import to_xgboost
from tests.fedround.learning.trees.planted import THREE, TREES, nothing, rows, trained


def test_xgboost_s_file_says_the_same_trees():
    """An independent walk of the JSON, as its readers walk: left below the condition."""
    for task in (CLASSIFY, THREE):
        model = trained([rows(120, 1, task.classes)], task)
        learner = json.loads(to_xgboost(TREES, task, model, ["a", "b", "c"]))["learner"]
        x_NF = rows(40, 2).inputs[INPUT]
        x_NF[:12, 0] = splits(TREES).threshold_TM[:, 0]          # on a threshold
        found = np.zeros((40, outputs_of(task)))
        booster = learner["gradient_booster"]["model"]
        for tree, output in zip(booster["trees"], booster["tree_info"], strict=True):
            assert np.isclose(sum(tree["sum_hessian"][-TREES.leaves:]), 1)
            for place, row in enumerate(x_NF):
                node = 0
                while tree["left_children"][node] >= 0:
                    below = row[tree["split_indices"][node]] < np.float32(tree["split_conditions"][node])
                    node = tree["left_children" if below else "right_children"][node]
                found[place, output] += tree["split_conditions"][node]
        assert found == pytest.approx(outputs(TREES, model, x_NF), abs=1e-6)
        assert len(booster["trees"]) == TREES.trees * outputs_of(task)


@pytest.mark.parametrize("task", [CLASSIFY, THREE, Regress(bounds=(-3, 50)), Count(max=20), Survive(edges=(1, 2, 5))],
                         ids=lambda task: f"{task.kind}-{outputs_of(task)}")
def test_xgboost_itself_reads_the_file_and_predicts_what_the_model_answers(task):
    """Also of a model that has not grown all of its trees, and on thresholds."""
    xgboost, torch = pytest.importorskip("xgboost"), pytest.importorskip("torch")
    generator, width = np.random.default_rng(5), outputs_of(task)
    model = nothing(task)
    model[GROWN][0] = 8
    model[LEAVES][:8] = generator.normal(scale=0.05, size=(8, TREES.leaves, width))
    x_NF = rows(300, 6).inputs[INPUT]
    x_NF[:12, 0] = splits(TREES).threshold_TM[:, 0]
    booster = xgboost.Booster()
    booster.load_model(bytearray(to_xgboost(TREES, task, model, ["a", "b = [1]", "c < 2"])))
    assert booster.num_boosted_rounds() == 8
    found = booster.predict(xgboost.DMatrix(x_NF, feature_names=booster.feature_names))
    if task.kind == "survive":                  # XGBoost tells the chance of an event in each interval
        found = np.cumprod(1 - found, axis=1)
    raw_NK = torch.from_numpy(outputs(TREES, model, x_NF))
    answers = task.answers(raw_NK if width > 1 else raw_NK[:, 0]).numpy()
    assert np.ptp(answers, axis=0).min() > 0
    assert found == pytest.approx(answers, rel=1e-5, abs=1e-6)
