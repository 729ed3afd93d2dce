"""A recipe that says COLUMNS and TARGET: what it may say, and what rows it can use."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedround.errors import ContractError
from fedround.learning.columns import Category, Column, Columns, Date, Numeric, Truth
from fedround.learning.encoding import encode
from fedround.learning.recipe import Recipe, load_recipe

HEAD = """
from torch import nn
from fedround.learning.columns import Category, Date, Numeric, Truth
NAME = "clinic"
"""
COLUMNS = 'COLUMNS = (Numeric("age", low=0, high=100), Category("sex", values=("f", "m")))\n'
MODEL = "def build_model(features): return nn.Linear(features, 1)\n"


def recipe_of(folder: Path, text: str) -> Recipe:
    (folder / "recipe.py").write_text(HEAD + textwrap.dedent(text))
    return load_recipe(folder / "recipe.py")


def test_a_recipe_without_an_encoder(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, COLUMNS + 'TARGET = "ill"\n' + MODEL)
    rows = pd.DataFrame({"age": [50.0, np.nan, 200.0], "sex": ["f", "x", None], "ill": [0, 1, 1]})
    found = encode(rows, recipe, lambda: recipe)
    assert found.inputs["x"].tolist() == [[0.5, 0, 1, 0, 0, 0], [0, 1, 0, 0, 1, 0], [1, 0, 0, 0, 0, 1]]
    assert found.targets["y"].tolist() == [0, 1, 1]
    assert found.counts_N.all()
    assert recipe.declared.columns is not None
    assert recipe.declared.columns.names == ("age", "age is missing", "sex = f", "sex = m", "sex is other", "sex is missing")
    assert recipe.build_model().weight.shape == (1, 6)  # type: ignore[union-attr]
    assert recipe.features(rows.drop(columns="ill"))["x"].tolist() == found.inputs["x"].tolist()


def test_rows_without_a_label_or_with_another_kind_of_value_count_for_nothing(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, COLUMNS + 'TARGET = "ill"\n' + MODEL)
    rows = pd.DataFrame({"age": pd.Series([50, "fifty", 60, 70, 80], dtype=object), "sex": list("ffffm"),
                         "ill": pd.Series([0, 1, pd.NA, 2, 1], dtype="Int64")})
    found = encode(rows, recipe, lambda: recipe)
    assert found.counts_N.tolist() == [True, False, False, False, True]
    assert not found.inputs["x"][1:4].any()
    assert not found.targets["y"][:4].any()
    with pytest.raises(ContractError, match="column 'age' must hold numbers"):
        recipe.features(rows)


@pytest.mark.parametrize(("target", "held", "labels", "counts", "classes"), [
    ('"y"', [True, False, None], [1, 0, 0], [True, True, False], 2),
    ('"y"', [0, 1.5, -1], [0, 0, 0], [True, False, False], 2),
    ('Category("y", values=("b", "a", "c"))', ["a", "z", "c"], [1, 0, 2], [True, False, True], 3),
    ('Category("y", values=("no",))', ["no", "yes", None], [0, 0, 0], [True, False, False], 2),
    ('Category("y", values=(1, 2))', [2, 1, 3], [1, 0, 0], [True, True, False], 2)])
def test_targets(tmp_path: Path, target: str, held: list[Any], labels: list[int], counts: list[bool], classes: int) -> None:
    recipe = recipe_of(tmp_path, COLUMNS + f"TARGET = {target}\n" + MODEL)
    rows = pd.DataFrame({"age": [1, 2, 3], "sex": list("fmf"), "y": pd.Series(held)})
    found = encode(rows, recipe, lambda: recipe)
    assert found.targets["y"].tolist() == labels
    assert found.counts_N.tolist() == counts
    assert recipe.task.classes == classes


@pytest.mark.parametrize(("said", "held", "learnt", "counts"), [
    ('TASK = Regress(bounds=(-1, 9))\nTARGET = "y"', {"y": [2.5, None, 1e300]}, {"y": [2.5, 0, 0]}, [True, False, False]),
    ('TASK = Count(max=9)\nTARGET = "y"', {"y": [2, -1, 0]}, {"y": [2, 0, 0]}, [True, False, True]),
    ('TASK = Survive(edges=(1, 5))\nTARGET = {"time": "t", "event": Category("e", values=("alive", "dead"))}',
     {"t": [2.5, 3, -1], "e": ["dead", "lost", "alive"]}, {"event": [1, 0, 0], "time": [2.5, 0, 0]}, [True, False, False])])
def test_targets_of_every_kind(tmp_path: Path, said: str, held: dict[str, Any], learnt: dict[str, Any],
                               counts: list[bool]) -> None:
    head = "from fedround.learning.tasks import Count, Regress, Survive\n"
    recipe = recipe_of(tmp_path, head + COLUMNS + said + "\n" + MODEL)
    rows = pd.DataFrame({"age": [1, 2, 3], "sex": list("fmf"), **held})
    found = encode(rows, recipe, lambda: recipe)
    assert {name: array.tolist() for name, array in found.targets.items()} == learnt
    assert found.counts_N.tolist() == counts
    assert {name: array.dtype.name for name, array in found.targets.items()} == dict(recipe.task.dtypes_by_name)
    assert hash(recipe) == hash(recipe)         # caches are kept by recipe
    first = recipe.encode(rows.head(1))
    assert {name: array.tolist() for name, array in first.targets.items()} == {name: one[:1] for name, one in learnt.items()}
    with pytest.raises(ContractError, match="the target .* must hold"):
        recipe.encode(rows)


def test_columns_beside_a_function_of_labels(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, COLUMNS + "def labels(rows): return (rows['age'] > 40).to_numpy(int)\n" + MODEL)
    rows = pd.DataFrame({"age": [1.0, 50.0], "sex": ["f", "m"]})
    assert encode(rows, recipe, lambda: recipe).targets["y"].tolist() == [0, 1]


FEATURES = "def features(rows): return rows[['age']].to_numpy('float32')\n"
LABELS = "def labels(rows): return rows['ill'].to_numpy()\n"


@pytest.mark.parametrize(("text", "words"), [
    (COLUMNS + FEATURES + LABELS + MODEL, "says both COLUMNS and features"),
    (COLUMNS + 'TARGET = "ill"\n' + LABELS + MODEL, "says both TARGET and labels"),
    ('TARGET = "ill"\n' + MODEL, "must define a function 'features', or say COLUMNS"),
    (COLUMNS + MODEL, "must define a function 'labels', or say TARGET"),
    (COLUMNS + 'TARGET = "age"\n' + MODEL, "'age' is the TARGET, and in COLUMNS"),
    (COLUMNS + 'TARGET = {"time": "t", "event": "e"}\n' + MODEL, "learns from 'y': say TARGET = \"COLUMN\""),
    ("from fedround.learning.tasks import Survive\n" + COLUMNS + 'TASK = Survive(edges=(1,))\nTARGET = "t"\n' + MODEL,
     'say TARGET = {"event": "COLUMN", "time": "COLUMN"}'),
    (COLUMNS + 'TARGET = 3\n' + MODEL, "TARGET must be the name of a column"),
    ('COLUMNS = ("age",)\nTARGET = "ill"\n' + MODEL, "COLUMNS must be a list of columns"),
    ('COLUMNS = ()\nTARGET = "ill"\n' + MODEL, "COLUMNS: .*at least 1 must be named"),
    ('COLUMNS = (Truth("a"), Truth("a"))\nTARGET = "ill"\n' + MODEL, "'a' is said twice"),
    ('COLUMNS = (Numeric("age", low=5, high=5),)\nTARGET = "ill"\n' + MODEL, "column 'age': 'low' must be less"),
    ('COLUMNS = (Numeric("age", low=5),)\nTARGET = "ill"\n' + MODEL, "column 'age': 'high' is missing"),
    (COLUMNS + 'TARGET = "ill"\ndef build_model(a, b): ...\n', "takes 2 arguments, expected none, or the number"),
    (FEATURES + LABELS + MODEL, "takes 1 argument, expected none without COLUMNS"),
    (COLUMNS + 'TARGET = "ill"\n', "must define a function 'build_model'")])
def test_what_a_recipe_must_not_say(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ContractError, match=words):
        recipe_of(tmp_path, text)


@pytest.mark.parametrize("wrong", [
    lambda: Category("a", values=()), lambda: Category("a", values=("x", "x")), lambda: Category("a", values=(1, True)),
    lambda: Category("a", values=(2 ** 60,)), lambda: Date("a", first="2020-02-30", last="2021-01-01"),
    lambda: Date("a", first="2021-01-01", last="2020-01-01"), lambda: Numeric("a", low=0, high=float("inf")),
    lambda: Numeric("a", low=0, high=1, scale="root"), lambda: Numeric("a\nb", low=0, high=1)])
def test_what_a_column_must_not_say(wrong: Any) -> None:
    with pytest.raises(ContractError, match="^column 'a"):
        wrong()


@pytest.mark.parametrize(("column", "held", "words"), [
    (Numeric("a", low=0, high=1), ["x", "y"], "must hold numbers"),
    (Numeric("a", low=0, high=1, missing=False), [np.nan, np.nan], "must hold numbers, in every row"),
    (Category("a", values=("1", "2")), [1, 2], "must hold texts"), (Category("a", values=(1, 2)), ["1", "2"], "must hold"),
    (Truth("a"), [2, 3], "true or false"), (Date("a", first="2000-01-01", last="2001-01-01"), ["2000-01-01"], "dates")])
def test_rows_of_another_kind(column: Column, held: list[Any], words: str) -> None:
    rows = pd.DataFrame({"a": held})
    columns = Columns(columns=(column,))
    assert not columns.encode(rows)[1].any()
    with pytest.raises(ContractError, match=words):
        columns.all_of(rows)
    with pytest.raises(ContractError, match="the rows have no column 'a'"):
        columns.encode(rows.rename(columns={"a": "b"}))


def test_columns_are_read_back() -> None:
    columns = Columns(columns=(Numeric("age", low=18, high=95), Category("x", values=(1, 2)), Truth("t", missing=False),
                               Date("d", first="2000-01-01", last="2001-01-01")))
    assert Columns.model_validate_json(columns.model_dump_json()) == columns
