"""How a committed model decides: on the page, on a terminal, and as scikit-learn has it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.inspection import permutation_importance
from typer.testing import CliRunner

from fedround.errors import ContractError
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples
from fedround_cli.main import app
from infra.history import read_commit
from tasks import explain
from tasks.catch_up import catch_up
from tasks.explain import _whole, explained, pulls
from tasks.report import page, records
from tests.bundled import Bundled
from tests.small_federation import SmallFederation


@pytest.fixture
def federation(bundled: Bundled, tmp_path: Path) -> SmallFederation:
    return bundled.federation.copy(tmp_path / "copy")


def fedround(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.output if result.exit_code == 0 else f"exit code {result.exit_code}: {result.output}"


def test_columns_matter_as_scikit_learn_says(federation: SmallFederation):
    """The law is the same, the draws are not: the means agree within three standard errors of both."""
    coordinator = federation.coordinator
    commit = read_commit(coordinator.store, "spring", 1, coordinator.identity.key).commit
    frame, model = pd.read_parquet(coordinator.folder / "test.parquet"), _whole(coordinator, commit)

    class Scorer:
        def fit(self, *_: object) -> None: ...

        def score(self, x: pd.DataFrame, y: np.ndarray) -> float:
            found = scores(coordinator.recipe, model, Examples(coordinator.recipe.features(x), y))
            return coordinator.recipe.task.worth(found)

    theirs = permutation_importance(Scorer(), frame[["x1", "x2"]], frame["y"].to_numpy(), n_repeats=10, random_state=1)
    found = {one.column: one for one in explained(coordinator, "spring", 1).importance}
    assert set(found) == {"x1", "x2"}, "the label is no column of the model"
    for column, mean, std in zip(("x1", "x2"), theirs.importances_mean, theirs.importances_std, strict=True):
        ours = found[column]
        assert abs(ours.value - mean) < 3 * np.hypot(ours.std / 5 ** 0.5, std / 10 ** 0.5) + 0.005
    assert explained(coordinator, "spring", 1) == explained(coordinator, "spring", 1)


def test_the_pulls_of_a_row_add_up_and_a_column_that_nothing_is_made_of_has_none(federation: SmallFederation):
    coordinator = federation.coordinator
    commit = read_commit(coordinator.store, "spring", 1, coordinator.identity.key).commit
    recipe, model = coordinator.recipe, _whole(coordinator, commit)
    frame = pd.read_parquet(coordinator.folder / "test.parquet").assign(idle=1.0)
    found = {one.column: np.array(one.values) for one in pulls(recipe, model, frame, ["x1", "idle", "x2"])}
    assert (found["idle"] == 0).all()
    generator = np.random.default_rng(explain._SEED)                  # the draws of `pulls`
    own = np.repeat(np.sort(generator.choice(len(frame), 100, replace=False)), 5)
    others = generator.integers(0, len(frame), 500)
    chance_N = scores(recipe, model, recipe.encode(frame))["score"]
    assert sum(found.values()) == pytest.approx((chance_N[own] - chance_N[others]).reshape(100, 5).mean(axis=1), abs=2e-4)
    assert np.corrcoef(found["x1"], frame["x1"][own[::5]])[0, 1] > 0.8, "the label grows with x1"
    many = [f"c{n}" for n in range(8)]                                  # beyond seven, orders are drawn
    wide = frame.assign(**dict.fromkeys(many, 0.0))
    drawn = {one.column: one for one in pulls(recipe, model, wide, ["x1", "x2", *many])}
    assert all(drawn[name].strength == 0 for name in many)
    assert drawn["x1"].strength == pytest.approx(np.abs(found["x1"]).mean(), rel=0.3)


def test_the_command_tells_and_the_page_shows_it(federation: SmallFederation, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "140")
    coordinator = federation.coordinator
    catch_up(coordinator, "spring")
    tag = "spring/round-00001"
    text = " ".join(fedround("models", "explain", tag, "-c", coordinator.folder, "--missed", "4").split())
    for words in ("calibration", "thresholds", "A missed row costs 4 false alarms", "would be 0.200", "loss if shuffled"):
        assert words in text
    shown = page(coordinator, "spring", 1).read_text()
    for words in ("How the model decides", "Calibration: what was true", "Loss if a column is shuffled", "SHAP",
                  "4 false alarms"):
        assert words in shown
    assert records(coordinator, "spring")[0].explained is not None
    told = json.loads(fedround("models", "explain", tag, "-c", coordinator.folder, "--json"))
    assert len(told["reliability"]["bins"]) == 10
    assert "above 0" in fedround("models", "explain", tag, "-c", coordinator.folder, "--missed", "0")


def test_without_public_rows_nothing_is_explained(federation: SmallFederation):
    coordinator = federation.coordinator
    blind = dataclasses.replace(coordinator, settings=coordinator.settings.model_copy(update={"test_set": None}))
    with pytest.raises(ContractError, match="public test set"):
        explained(blind, "spring", 1)
