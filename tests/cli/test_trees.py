"""Commands where they meet a model of trees."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import pytest

from fedround import codec
from fedround.learning.exported import answers
from fedround.privacy import ledger
from infra.history import read_commit
from tests import small_federation
from tests.cli.conftest import Fedround, one_sentence
from tests.small_federation import SmallFederation
from tests.small_trees import RECIPE, made


@pytest.fixture(scope="module")
def two_rounds(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    """Of three: not all trees have grown."""
    federation = made(tmp_path_factory.mktemp("two-rounds"))
    federation.round()
    federation.round()
    return federation


def test_xgboost_reads_what_models_get_writes_and_predicts_what_the_model_answers(fedround: Fedround, two_rounds, tmp_path):
    xgboost = pytest.importorskip("xgboost")
    coordinator, folder, file = two_rounds.coordinator, two_rounds.root / "coordinator", tmp_path / "model.json"
    assert fedround("models", "rebuild", "spring", "-c", folder).exit_code == 0
    told = fedround("models", "get", "spring/round-00002", file, "--as", "xgboost", "-c", folder)
    assert "4 features" in told.stdout
    booster = xgboost.Booster(model_file=str(file))
    assert booster.feature_names == ["x1", "x1 is missing", "x2", "x2 is missing"]
    assert booster.num_boosted_rounds() == 8
    inputs = coordinator.recipe.features(small_federation.rows(400, 99))
    (x_NF,) = inputs.values()
    commit = read_commit(coordinator.store, "spring", 2, coordinator.identity.key).commit
    model = codec.decode(coordinator.store.get(f"models/{commit.model}.safetensors"), coordinator.recipe.trees.model(1), "it")
    found = booster.predict(xgboost.DMatrix(x_NF, feature_names=booster.feature_names))
    assert found == pytest.approx(answers(coordinator.recipe, model, inputs), abs=1e-6)
    assert np.ptp(found) > 0.1
    one_sentence(fedround("models", "get", "spring/round-00009", file, "--as", "xgboost", "-c", folder), "spring/round-00009")


def test_a_model_of_trees_is_explained_and_contributions_are_split(fedround: Fedround, two_rounds):
    """From the public test set and the stored sums alone. A round without any update leaves the round's trees at 0."""
    folder = two_rounds.root / "coordinator"
    assert fedround("models", "rebuild", "spring", "-c", folder).exit_code == 0
    told = json.loads(fedround("models", "explain", "spring/round-00002", "-c", folder, "--json").stdout)
    assert {one["column"] for one in told["importance"]} == {"x1", "x2"}
    assert all(one["value"] > 0.02 for one in told["importance"])
    assert all(one["strength"] > 0 for one in told["pulls"])
    first, second = json.loads(fedround("models", "contribution", "spring", "-c", folder, "--json").stdout)["rounds"]
    assert first["nobody"] == pytest.approx(0.5)
    assert second["nobody"] == pytest.approx(first["everybody"])
    for one in (first, second):
        assert sum(site["value"] for site in one["sites"]) == pytest.approx(one["everybody"] - one["nobody"])


def test_a_site_rehearses_a_round_of_trees_and_nothing_is_charged(fedround: Fedround, rows_are_judged_here, tmp_path):
    federation = made(tmp_path / "federation")
    federation.plan()
    told = fedround("site", "rehearse", federation.root / "north")
    assert told.exit_code == 0, told.output
    assert "train 4 trees of depth 3" in told.stdout
    assert "4 features each" in told.stdout
    assert not ledger.read(federation.site("north").ledger).charges


def test_a_model_of_one_feature_a_tree_is_drawn_and_told_as_shapes_with_the_noise_in_them(
        fedround: Fedround, tmp_path, rows_are_judged_here: None, two_rounds):
    recipe = RECIPE.replace("l2=0.02", "l2=0.02, features_per_tree=1").replace("per_round=4", "per_round=20")
    federation = made(tmp_path, recipe=recipe)
    federation.round()
    folder, picture = federation.root / "coordinator", tmp_path / "shapes.svg"
    assert fedround("models", "rebuild", "spring", "-c", folder).exit_code == 0
    told = json.loads(fedround("models", "shapes", "spring/round-00001", "-c", folder, "--picture", picture, "--json").stdout)
    assert {"x1", "x2"} <= {one["feature"] for one in told}
    rising = next(one for one in told if one["feature"] == "x1")
    assert rising["values"][-1][0] > rising["values"][0][0], "the label grows with x1"
    assert all(std[0] > 0 for std in rising["std"])
    drawn = ElementTree.fromstring(picture.read_bytes())
    assert len(drawn.findall("{*}g")) == len(told)
    assert len(drawn.findall("{*}g/{*}path[@class='band']")) == len(told)
    assert "the sum of what its features add" in fedround("models", "shapes", "spring/round-00001", "-c", folder).stdout
    one_sentence(fedround("models", "shapes", "spring/round-00001", "-c", two_rounds.root / "coordinator"),
                 "features_per_tree = 1")
