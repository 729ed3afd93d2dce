"""Rows without labels get the scores that the model gives, all or none, and a bundle's recipe gets no more than it needs."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fedround import bundle, sandbox
from fedround.bundle import Bundle
from fedround.errors import ContractError, SetupError
from fedround.learning.exported import Served
from fedround.signing import Identity, digest
from fedround_cli.main import app
from site_workers import rows_in_parts, scoring
from site_workers.policy import Limits
from tests import small_federation
from tests.bundled import Bundled
from tests.small_federation import RECIPE

LIGHT = RECIPE.replace("from torch import nn\n", "").replace("return nn.", "return None  # ")     # a second of CPU time less
ALLOWED = Limits(memory_mb=4096, seconds=600)


def unlabelled(count: int = 250) -> pd.DataFrame:
    return small_federation.rows(count, 5).drop(columns="y").assign(name="a secret, with commas")


def expected(bundled: Bundled, frame: pd.DataFrame, form: str = "float32") -> np.ndarray:
    served = Served(bundled.bundle.files[bundle.FORMS[form]])
    return served.answers({"x": frame[["x1", "x2"]].to_numpy(np.float32)})


def other(bundled: Bundled, recipe: str) -> Bundle:
    """A bundle whose recipe is another one."""
    found = bundled.bundle
    return dataclasses.replace(found, manifest=found.manifest.model_copy(update={"recipe_digest": digest(recipe.encode())}),
                               files={**found.files, bundle.RECIPE: recipe.encode()})


@pytest.mark.parametrize(("suffix", "written_as"), [("csv", "parquet"), ("parquet", "csv")])
def test_rows_without_labels_are_scored_in_parts_and_in_their_order(bundled, tmp_path, monkeypatch, suffix, written_as):
    monkeypatch.setattr(scoring, "BATCH", 100)
    frame, path, out = unlabelled(), tmp_path / f"rows.{suffix}", tmp_path / f"scores.{written_as}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    done = scoring.score(other(bundled, LIGHT), path, out, limits=ALLOWED)
    written = pd.read_csv(out) if written_as == "csv" else pd.read_parquet(out)
    assert done.rows == 250
    assert list(written.columns) == ["row", "chance"]
    assert np.array_equal(written["row"], np.arange(250))
    assert np.abs(written["chance"] - expected(bundled, frame)).max() < 1e-6
    assert out.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("frame", "says"), [
    (unlabelled().drop(columns="x2"), "needs the column 'x2'"),
    (unlabelled().assign(x2="high"), "'x2' must hold numbers"),
    (unlabelled().assign(x1=np.nan), "rows 1 to 250 .*finite"),
    (unlabelled().head(0), "no rows"),
])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_that_the_model_cannot_take_are_one_sentence(bundled: Bundled, tmp_path, frame, says, suffix):
    path = tmp_path / f"rows.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    parts, recipe = rows_in_parts.read(path, bundled.bundle.manifest.columns, 250), bundled.federation.coordinator.recipe
    with pytest.raises(ContractError, match=says) as refused:
        next(rows_in_parts.encoded(recipe, part, 0) for part in parts)
    assert "secret" not in str(refused.value)


def test_a_file_that_is_none_is_one_sentence_and_old_scores_stay(bundled: Bundled, tmp_path):
    path, out = tmp_path / "rows.parquet", tmp_path / "scores.csv"
    path.write_text("a secret")
    out.write_text("of last week")
    with pytest.raises(ContractError, match="not a readable parquet file") as refused:
        scoring.score(other(bundled, LIGHT), path, out, limits=ALLOWED)
    assert "secret" not in str(refused.value)
    assert out.read_text() == "of last week"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["rows.parquet", "scores.csv"]


def test_a_recipe_that_fails_with_a_value_in_its_words_tells_nobody(bundled: Bundled, tmp_path):
    talks = LIGHT.replace("    return rows[[", "    raise ValueError(f'{rows.iloc[0].tolist()}')\n    return rows[[")
    unlabelled().assign(x1=0.4711).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(ContractError, match="ValueError") as refused:
        scoring.score(other(bundled, talks), tmp_path / "rows.csv", tmp_path / "scores.csv", limits=ALLOWED)
    assert "0.4711" not in str(refused.value)


def test_a_recipe_gets_no_credential_no_other_column_and_no_more_memory_than_allowed(bundled: Bundled, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    path, out = tmp_path / "rows.csv", tmp_path / "scores.csv"
    unlabelled().to_csv(path, index=False)
    nosy = LIGHT.replace("    return rows[[", """    import os
    if "AWS_SECRET_ACCESS_KEY" in os.environ or "name" in rows:
        raise ValueError
    return rows[[""")
    assert scoring.score(other(bundled, nosy), path, out, limits=ALLOWED).rows == 250
    out.unlink()
    greedy = LIGHT.replace("    return rows[[", "    np.zeros(6 << 27)\n    return rows[[")
    with pytest.raises((MemoryError, SetupError)):
        scoring.score(other(bundled, greedy), path, out, limits=ALLOWED)
    assert not out.exists()


@pytest.mark.skipif(sandbox.lacking() is not None, reason=str(sandbox.lacking()))
@pytest.mark.parametrize("what", ["__import__('socket').socket()", "open('/etc/passwd').read()"])
def test_attack_a_recipe_of_a_bundle_has_no_network_and_no_other_file(bundled: Bundled, tmp_path, what):
    unlabelled().to_csv(tmp_path / "rows.csv", index=False)
    nosy = LIGHT.replace("    return rows[[", f"    {what}\n    return rows[[")
    with pytest.raises((SetupError, ContractError)):
        scoring.score(other(bundled, nosy), tmp_path / "rows.csv", tmp_path / "scores.csv", limits=ALLOWED)
    assert not (tmp_path / "scores.csv").exists()


def test_a_recipe_that_ends_its_process_is_a_sentence(bundled: Bundled, tmp_path):
    unlabelled().to_csv(tmp_path / "rows.csv", index=False)
    ends = LIGHT.replace("    return rows[[", "    import os\n    os._exit(3)\n    return rows[[")
    with pytest.raises(SetupError, match="ended without an answer"):
        scoring.score(other(bundled, ends), tmp_path / "rows.csv", tmp_path / "scores.csv", limits=ALLOWED)


# -- the command -------------------------------------------------------------------------------------------------------


def predict(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    assert isinstance(done.exception, SystemExit | None), done.exception
    return done.exit_code, " ".join(done.output.split())


@pytest.fixture
def never_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("scored before the bundle was proven")

    monkeypatch.setattr(scoring, "score", fail)


def test_the_command_says_whose_model_it_was(bundled: Bundled, tmp_path):
    unlabelled().to_parquet(tmp_path / "rows.parquet")
    out = tmp_path / "scores.csv"
    code, said = predict(bundled.file(tmp_path), tmp_path / "rows.parquet", "-o", out, "--key", bundled.key)
    assert (code, "250 rows scored" in said, "nobody has approved it" in said) == (0, True, True)


@pytest.mark.usefixtures("never_scored")
def test_a_bundle_that_cannot_be_proven_scores_nothing(bundled: Bundled, tmp_path):
    path = bundled.file(tmp_path)
    unlabelled().to_csv(tmp_path / "rows.csv", index=False)
    asked = (path, tmp_path / "rows.csv", "-o", tmp_path / "scores.csv")
    for options, says in ((("--key", Identity.generate().key), "another key"), (("--key", "me"), "not a public key"),
                          (("--as", tmp_path), "whose bundle is it")):
        code, said = predict(*asked, *options)
        assert (code, says in said) == (1, True), said
    altered = bytearray(bundled.body)
    altered[len(altered) // 2] ^= 4
    path.write_bytes(altered)
    code, said = predict(*asked, "--key", bundled.key)
    assert (code, "altered" in said) == (1, True), said


@pytest.mark.usefixtures("never_scored")
def test_a_site_runs_only_a_recipe_that_its_operator_approved(bundled: Bundled, tmp_path):
    site = tmp_path / "north"
    shutil.copytree(bundled.federation.root / "north", site)
    policy = site / "policy.toml"
    approved = bundled.bundle.manifest.recipe_digest
    assert approved in policy.read_text()
    policy.write_text(policy.read_text().replace(approved, "1" * 64))
    unlabelled().to_csv(tmp_path / "rows.csv", index=False)
    code, said = predict(bundled.file(tmp_path), tmp_path / "rows.csv", "-o", tmp_path / "scores.csv", "--as", site)
    assert (code, "not approved at this site" in said) == (1, True), said
