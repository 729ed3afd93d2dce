"""`fedround contract`: what a person sees of a first contract, of rows that are judged, and of two versions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.cli.conftest import Fedround, one_sentence
from validation.contract import load_contract


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A folder with a table in two parts."""
    rng, folder = np.random.default_rng(0), tmp_path / "parts"
    folder.mkdir()
    for part in range(2):
        pd.DataFrame({"age": rng.integers(20, 80, 100), "sex": rng.choice(["f", "m"], 100), "ill": rng.choice([0, 1], 100)}
                     ).to_parquet(folder / f"{part}.parquet")
    return folder


def test_from_a_sample_to_a_verdict_and_to_what_changed(fedround: Fedround, parts: Path, monkeypatch: pytest.MonkeyPatch):
    told = fedround("contract", "infer", parts, "--target", "ill", "-o", "first.json")
    assert told.exit_code == 0, told.output
    assert "made from these 200 rows" in told.output
    assert "Read and correct it before you share it" in told.output
    assert "first.json exists" in one_sentence(fedround("contract", "infer", parts, "-o", "first.json"))
    assert fedround("contract", "check", "first.json", parts).exit_code == 0

    text = Path("first.json").read_text()
    Path("second.json").write_text(text.replace('"max_value": 90', '"max_value": 60').replace('["f", "m"]', '["f"]').replace(
        '{"id": "sex_is_known"', '{"severity": "warning", "id": "sex_is_known"'))
    ages = pd.concat([pd.read_parquet(path) for path in sorted(parts.iterdir())], ignore_index=True)
    old = int((ages["age"] > 60).sum())
    failed = fedround("contract", "check", "second.json", parts, "--json")
    found = json.loads(failed.stdout)
    assert (failed.exit_code, found["holds"], found["rows"], found["left_out"]) == (1, False, 200, old)
    assert [(one["id"], one["severity"], one["failing"]) for one in found["checks"] if not one["holds"]] == [
        ("age_in_range", "error", old), ("sex_is_known", "warning", int((ages["sex"] == "m").sum()))]
    changed = fedround("contract", "diff", "first.json", "second.json", "--json")
    assert [one["kind"] for one in json.loads(changed.stdout)["changes"]] == ["tightened", "changed"]
    assert "the same file" in fedround("contract", "diff", "first.json", "first.json").output
    for width in ("60", "80", "200"):
        monkeypatch.setenv("COLUMNS", width)
        for command in (("check", "second.json", parts), ("diff", "first.json", "second.json")):
            lines = [line for line in fedround("contract", *command).output.splitlines() if line[:1] in "┏┃┡│└"]
            assert lines
            assert max(map(len, lines)) <= int(width)


def test_a_warning_alone_is_no_failure(fedround: Fedround, parts: Path):
    Path("mild.json").write_text(json.dumps({"name": "mild", "checks": [
        {"id": "old", "type": "expect_column_values_to_be_between", "severity": "warning",
         "kwargs": {"column": "age", "max_value": 30}},
        {"id": "gone", "type": "expect_column_to_exist", "severity": "warning", "kwargs": {"column": "gone"}}]}))
    told = fedround("contract", "check", "mild.json", parts)
    assert told.exit_code == 0
    assert "0 of 2 checks hold, 2 of the others only warn; 0 of 200 rows would count for nothing" in told.output


def test_attack_a_file_that_cannot_be_read_is_one_sentence_and_is_not_quoted(fedround: Fedround, parts: Path, tmp_path: Path):
    (tmp_path / "torn.parquet").write_bytes(b"SECRET-PATIENT-77" * 9)
    (tmp_path / "torn.csv").write_bytes(b'"SECRET-PATIENT-77\n')
    (tmp_path / "none").mkdir()
    Path("some.json").write_text(json.dumps({"name": "some", "checks": [
        {"id": "rows", "type": "expect_table_row_count_to_equal", "kwargs": {"value": 2}}]}))
    for name, words in {"torn.parquet": "not a readable parquet file", "torn.csv": "rows at", "none": "no .parquet or .csv",
                        "nowhere.csv": "cannot be read", "some.json": "expected a .parquet or .csv"}.items():
        for command in (("infer",), ("check", "some.json")):
            assert "SECRET" not in one_sentence(fedround("contract", *command, tmp_path / name), words)


def test_a_contract_of_a_recipes_columns(fedround, tmp_path):
    Path("recipe.py").write_text('''
from torch import nn
from fedround.learning.columns import Category, Date, Numeric, Truth
NAME = "clinic"
COLUMNS = (Numeric("age", low=18, high=95.5, missing=False), Category("sex", values=("f", "m")), Truth("smoker"),
           Category("ward", values=(1, 2)), Date("since", first="2000-01-01", last="2030-01-01"))
TARGET = Category("outcome", values=("well", "ill"))
def build_model(features): return nn.Linear(features, 1)
''')
    one_sentence(fedround("contract", "infer"), "made of rows, or of a recipe's COLUMNS")
    made = fedround("contract", "infer", "--recipe", "recipe.py")
    assert made.exit_code == 0, made.output
    checks = {check.id: check for check in load_contract(Path("contract.json")).checks}
    assert {name: check.severity for name, check in checks.items()} == {
        "columns_as_agreed": "error", "outcome_is_there": "error", "outcome_is_known": "error", "sex_is_text": "error",
        "outcome_is_text": "error", "age_in_range": "warning", "age_is_there": "warning", "sex_is_known": "warning",
        "ward_is_known": "warning"}
    assert checks["age_in_range"].kwargs == {"column": "age", "min_value": 18, "max_value": 95.5}
    assert checks["outcome_is_known"].kwargs["value_set"] == ["well", "ill"]
    Path("recipe.py").write_text("NAME = 'a'\ndef features(rows): ...\ndef labels(rows): ...\ndef build_model(): ...\n")
    one_sentence(fedround("contract", "infer", "--recipe", "recipe.py", "--force"), "has no COLUMNS")
