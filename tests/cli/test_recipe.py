"""fedround recipe: whatever the table is, there is a recipe that runs, or one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedround.learning.recipe import load_recipe
from tests.cli.conftest import Fedround, one_sentence
from tests.small_federation import RECIPE

ROWS = 160


def common(rows: int = ROWS) -> pd.DataFrame:
    """A table as hospitals have it: codes, gaps, amounts, names, days."""
    generator = np.random.default_rng(1)
    age = generator.integers(20, 90, rows).astype(float)
    frame = pd.DataFrame({
        "patient_id": np.arange(1000, 1000 + rows), "age": age, "sex": generator.choice(["f", "m"], rows),
        "ward": generator.choice([1, 2, 3], rows), "bill": generator.lognormal(7, 2, rows).round(2),
        "smoker": generator.random(rows) < 0.4, "town": generator.choice([f"town {place}" for place in range(40)], rows),
        "surname": [f"name {place}" for place in range(rows)], "const": 7, "empty": pd.Series([None] * rows, dtype=object),
        "seen": pd.Timestamp("2026-01-01") + pd.to_timedelta(generator.integers(0, 99, rows), "D"),
        "ill": (age + generator.normal(0, 20, rows) > 55).astype(int)})
    frame.loc[::5, "age"] = np.nan
    frame.loc[::7, "sex"] = None
    return frame


def with_target(values: Any) -> pd.DataFrame:
    return common().assign(ill=values)


GENERATOR = np.random.default_rng(2)
TABLES: dict[str, pd.DataFrame] = {
    "common": common(), "truths": with_target(np.arange(ROWS) % 3 == 0), "texts": with_target(["no", "yes"] * (ROWS // 2)),
    "codes from 1": with_target(np.arange(ROWS) % 4 + 1), "gaps in the target": with_target([0, 1, None, 1] * (ROWS // 4)),
    "odd names": common().rename(columns={"age": 'a "q" \\ name', "ward": "été % {x}", "bill": "a\u202eb", "sex": "class"}),
    "a line in a name": common().rename(columns={"age": "two\nlines"}),
    "wide": pd.DataFrame(GENERATOR.normal(size=(60, 400)), columns=[f"x{place}" for place in range(400)]).assign(
        ill=np.arange(60) % 2),
    "infinite": common().assign(age=lambda rows: rows["age"].where(rows.index % 9 > 0, np.inf)),
    "large numbers": common().assign(age=lambda rows: rows["age"] * 1e90, bill=2.0 ** 60)}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_becomes_a_recipe_that_runs(fedround: Fedround, name: str) -> None:
    TABLES[name].to_parquet("rows.parquet")
    ran_at_once(fedround, "rows.parquet")


KINDS = {"count": ["--target", "visits"], "regress": ["--target", "bill"], "amounts": ["--target", "bill", "--task", "count"],
         "survive": ["--time", "days", "--event", "died"], "survive with a list": ["--time", "days", "--event", "sex"]}


@pytest.mark.parametrize("name", KINDS)
def test_a_table_becomes_a_recipe_of_every_kind(fedround: Fedround, name: str) -> None:
    frame = common(400)
    frame["visits"], frame["days"] = GENERATOR.poisson(8, 400), GENERATOR.exponential(300, 400).round() + 1
    frame["died"] = GENERATOR.random(400) < 0.5
    frame.to_parquet("rows.parquet")
    found = ran_at_once(fedround, "rows.parquet", *KINDS[name])
    assert found["task"] == {"amounts": "count", "survive with a list": "survive"}.get(name, name)
    assert load_recipe(Path("made/recipe.py")).task.kind == found["task"]


def ran_at_once(fedround: Fedround, rows: str, *target: str) -> dict[str, Any]:
    """Made, checked and simulated; what was decided."""
    made = fedround("recipe", "new", rows, *(target or ("--target", "ill")), "-o", "made", "--json")
    assert made.exit_code == 0, made.output
    checked = fedround("recipe", "check", "made/recipe.py", rows, "--json")
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.stdout)["contract_differs"] == []
    judged = fedround("contract", "check", "made/contract.json", rows, "--json")
    assert all(one["holds"] or one["severity"] == "warning" or one["id"] in {"ill_is_there", "sex_is_there"}
               for one in json.loads(judged.stdout)["checks"])
    tried = fedround("simulate", "made", "--data", rows, "--sites", "2", "--rounds", "1", "--json")
    assert tried.exit_code == 0, tried.output
    found: dict[str, Any] = json.loads(made.stdout)
    return found


def test_csv_with_a_byte_order_mark_days_and_commas_in_texts(fedround: Fedround) -> None:
    frame = common().assign(town=lambda rows: rows["town"].where(rows.index % 3 == 0, "a, b"))
    Path("rows.csv").write_text(frame.to_csv(index=False), encoding="utf-8-sig")
    found = ran_at_once(fedround, "rows.csv")
    assert set(found["left_out"]) == {"patient_id", "surname", "const", "empty", "seen"}
    assert {one["column"]: one["kind"] for one in found["columns"]} == {
        "age": "numeric", "sex": "category", "ward": "category", "bill": "numeric", "smoker": "truth", "town": "category"}


def test_what_is_decided(fedround: Fedround) -> None:
    common(2000).to_parquet("rows.parquet")
    made = fedround("recipe", "new", "rows.parquet", "--target", "ill", "--levels", "3", "--rows-each", "30", "--json")
    found = json.loads(made.stdout)
    columns = {one["column"]: one for one in found["columns"]}
    assert (columns["age"]["low"], columns["age"]["high"]) == (10, 100)
    assert columns["bill"]["scale"] == "log"
    assert columns["ward"]["values"] == [1, 2, 3]
    assert set(found["left_out"]) == {"patient_id", "surname", "const", "empty", "seen", "town"}
    assert load_recipe(Path("recipe.py")).task.classes == 2
    assert "must be public knowledge" in Path("recipe.py").read_text()
    one_sentence(fedround("recipe", "new", "rows.parquet", "--target", "ill"), "recipe.py exists", "--force")


def test_no_rows_own_value_stands_in_the_files(fedround: Fedround) -> None:
    frame = common()
    frame.loc[0, "town"] = "lair"
    frame.to_parquet("rows.parquet")
    fedround("recipe", "new", "rows.parquet", "--target", "ill", "-o", "made")
    text = "".join((Path("made") / file).read_text() for file in ("recipe.py", "contract.json", "settings.toml"))
    assert "lair" not in text
    assert "name 3" not in text
    assert not any(f"{value:g}" in text for value in (*frame["bill"].nlargest(3), *frame["bill"].nsmallest(3)))


@pytest.mark.parametrize(("text", "options", "says"), [
    ("", ["--target", "ill"], ["it is empty"]),
    ("a,ill\n", ["--target", "ill"], ["there are no rows in it"]),
    ("ill\n" + "0\n1\n" * 20, ["--target", "ill"], ["no column is left to learn from", "no other column than the target"]),
    ("a,ill\n" + "1,0\n2,0\n" * 20, ["--target", "ill"], ["'ill' holds one value only", "nothing to learn"]),
    ("a,ill\n" + "1,0\n2,1\n" * 20, ["--target", "bad"], ["there is no column 'bad'", "'a', 'ill'"]),
    ("a,ill\n" + "1,0\n2,1\n" * 20, [], ["what is to be learnt?", "--target COLUMN"]),
    ("a,ill\n" + "1,0\n2,1\n" * 20, ["--target", "ill", "--task", "dream"], ["--task must be one of classify"]),
    ("a,ill\n" + "1,0\n2,1\n" * 20, ["--time", "a"], ["survival needs --time and --event"]),
    ("a,ill\n" + "1,0\n2,1\n" * 20, ["--target", "ill", "--without", "a"], ["no column is left", "'a' you said so"]),
    ("a,ill\n" + "".join(f"{n % 7},name {n}\n" for n in range(60)), ["--target", "ill"], ["60 different values", "--levels"]),
    pytest.param("a,ill\n" + "".join(f"{n % 7},name {n}\n" for n in range(1100)), ["--target", "ill"],
                 ["more than 1,000 different values", "--levels"], id="more labels than are counted"),
    ("a,ill\n" + "1,2026-01-01\n2,2026-01-02\n" * 20, ["--target", "ill"], ["'ill' holds days or times"]),
    ("a;ill\n" + "1;0\n2;1\n" * 20, ["--target", "ill"], ["semicolons"]),
    ("a,a,ill\n" + "1,1,0\n2,1,1\n" * 20, ["--target", "ill"], ["a"]),
    ("a,y\n" + "1,1e300\n2,-1e300\n" * 20, ["--target", "y", "--task", "regress"], ["'y' holds", "too large", "unit"]),
    ("a,y\n" + "1,2e-300\n2,-1e-300\n" * 20, ["--target", "y"], ["too near to each other", "unit"]),
    ("a,y\n" + "1,9000000000\n2,1\n" * 20, ["--target", "y", "--task", "count"], ["at most 1e9", "unit"]),
    ("a,y,n\n" + "1,9e9,0\n2,1,1\n" * 20, ["--time", "y", "--event", "n"], ["at most 1e9", "unit"]),
    ("a,y,n\n" + "1,9,0\n2,1,1\n2,1,2\n" * 20, ["--time", "y", "--event", "n"], ["an event must be 2", "was seen"]),
    ("a,ill\n" + "5,0\n5,1\n" * 20, ["--target", "ill"], ["'a' holds one value only"])])
def test_or_one_sentence(fedround: Fedround, text: str, options: list[str], says: list[str]) -> None:
    Path("rows.csv").write_text(text)
    one_sentence(fedround("recipe", "new", "rows.csv", *options), *says)
    assert not Path("recipe.py").exists()


def test_too_few_rows_to_simulate(fedround: Fedround) -> None:
    pd.DataFrame({"x": [1.5, 2, 3, 4, 5, 6, 7, 8], "ill": [0, 1] * 4}).to_parquet("rows.parquet")
    assert fedround("recipe", "new", "rows.parquet", "--target", "ill", "-o", "made").exit_code == 0
    assert fedround("recipe", "check", "made/recipe.py", "rows.parquet").exit_code == 0
    one_sentence(fedround("simulate", "made", "--data", "rows.parquet", "--sites", "2"), "hold out more rows")


def test_check_says_where_contract_and_columns_differ(fedround: Fedround) -> None:
    common().to_parquet("rows.parquet")
    fedround("recipe", "new", "rows.parquet", "--target", "ill")
    contract = json.loads(Path("contract.json").read_text())
    for check in contract["checks"]:
        if check["id"] == "age_in_range":
            check["kwargs"]["max_value"] = 140
        if check["id"] == "sex_is_known":
            check |= {"severity": "error", "kwargs": {"column": "sex", "value_set": ["f"]}}
    contract["checks"] = [check for check in contract["checks"] if check["id"] not in {"columns_as_agreed", "bill_in_range"}]
    Path("contract.json").write_text(json.dumps(contract))
    said = fedround("recipe", "check", "recipe.py", "rows.parquet").stdout
    assert "'age': it ends at 140 in the contract, at 100 in COLUMNS: larger numbers become that one" in said
    assert "'sex': COLUMNS list 1 value that the contract lacks: rows with such a value count for nothing" in said
    assert "'bill': the recipe reads it, and no check of the contract names it" in said
    one_sentence(fedround("recipe", "check", "recipe.py", "nowhere.parquet"), "nowhere.parquet")
    Path("rows.csv").write_text("age,ill\n50,1\n")
    one_sentence(fedround("recipe", "check", "recipe.py", "rows.csv"), "the rows have no column")


def test_what_a_recipe_says_of_a_client_runs_as_it_is_printed(fedround: Fedround) -> None:
    Path("app").mkdir()
    Path("app/client.py").write_text("raise SystemExit('it was run')")
    said = fedround("recipe", "client", ".", "--client", "app.client:app")
    Path("recipe.py").write_text(f"{RECIPE}\n{said.stdout}")
    found = load_recipe(Path("recipe.py")).foreign
    assert found is not None
    assert (found.client, [name for name, _ in found.files]) == ("app.client:app", ["app/client.py"])


def test_a_client_that_is_not_there_is_said(fedround: Fedround) -> None:
    Path("client.py").write_text("")
    one_sentence(fedround("recipe", "client", ".", "--client", "other:app"), "'other.py'", "is not among them")
    one_sentence(fedround("recipe", "client", "nowhere", "--client", "other:app"), "no Python file below nowhere")
