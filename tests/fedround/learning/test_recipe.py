"""A recipe is its bytes: what is approved is what runs, and what it builds is one function of the seed."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest
import torch

from fedround.errors import ContractError
from fedround.learning.examples import Examples
from fedround.learning.recipe import initial_tensors, load_recipe

PARTS = "def features(rows): ...\ndef labels(rows): ...\ndef build_model(): ..."


def test_the_digest_is_of_the_files_bytes(write_recipe):
    path = write_recipe()
    assert load_recipe(path).digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_one_changed_byte_is_refused_before_anything_runs(write_recipe, tmp_path):
    path = write_recipe()
    approved = load_recipe(path).digest
    path.write_text(path.read_text() + f"\nopen({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ContractError, match="the approved one is"):
        load_recipe(path, approved)
    assert not (tmp_path / "ran").exists()


def test_two_recipes_with_the_same_file_name_do_not_mix(write_recipe):
    path = write_recipe()
    first = load_recipe(path)
    path.write_text(path.read_text().replace("nn.Linear(3, 4)", "nn.Linear(3, 5)").replace("(4, 1)", "(5, 1)"))
    second = load_recipe(path)
    assert initial_tensors(first, 0)["0.weight"].shape == (4, 3)
    assert initial_tensors(second, 0)["0.weight"].shape == (5, 3)


@pytest.mark.parametrize(("source", "says"), [
    ("NAME = 'a'\ndef features(rows): ...\ndef labels(rows): ...", "must define a function 'build_model'"),
    ("NAME = 'a'\ndef build_model(): ...\ndef labels(rows): ...", "must define a function 'features'"),
    ("NAME = 'a'\ndef build_model(): ...\ndef features(rows): ...", "must define a function 'labels'"),
    (PARTS, "must define NAME"),
    (f"NAME = 'No Name'\n{PARTS}", "must define NAME"),
    (f"NAME = 'a'\nfrom fedround.learning.tasks import Classify\nTASK = Classify(classes=1)\n{PARTS}",
     r"Classify\(…\): .*classes.*greater than or equal to 2"),
    (f"NAME = 'a'\nTASK = 2\n{PARTS}", "TASK must be one of Classify"),
    (f"NAME = 'a'\nloss = 2\n{PARTS}", r"loss must be a function loss\(outputs, batch\)"),
    ("import nowhere_to_be_found", "does not run .*ModuleNotFoundError"),
    ("def (", "does not run .*SyntaxError"),
])
def test_an_incomplete_recipe_says_what_it_lacks(write_recipe, source, says):
    with pytest.raises(ContractError, match=says):
        load_recipe(write_recipe(source))


ROWS = pd.DataFrame({"a": [1.0, 2.0], "b": [0.0, 1.0], "c": [3.0, 4.0], "y": [0, 1]})


def test_rows_that_are_only_scored_need_no_label(recipe):
    assert np.array_equal(recipe.features(ROWS.drop(columns="y"))["x"], recipe.encode(ROWS).inputs["x"])


@pytest.mark.parametrize(("returned", "says"), [
    ("rows[['a']].to_numpy(np.float32)[1:]", "features of 1 row for 2 rows"),
    ("rows[['a']].to_numpy()", "features are float64"),
    ("rows[['a']].to_numpy(np.float32) * np.nan", "finite"),
])
def test_features_that_leave_a_row_out_or_are_no_numbers_are_refused(write_recipe, returned, says):
    path = write_recipe()
    path.write_text(path.read_text().replace("rows[[\"a\", \"b\", \"c\"]].to_numpy(np.float32)", returned))
    found = load_recipe(path)
    for use in (found.features, found.encode):
        with pytest.raises(ContractError, match=says):
            use(ROWS)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(ContractError, match="cannot be read"):
        load_recipe(tmp_path / "nothing.py")


def test_the_initial_model_is_a_function_of_the_seed_and_leaves_global_randomness_alone(recipe):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = initial_tensors(recipe, 1), initial_tensors(recipe, 1), initial_tensors(recipe, 2)
    assert torch.rand(1) == expected
    assert all(array.dtype == np.float32 for array in one.values())
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["0.weight"], other["0.weight"])


@pytest.mark.parametrize(("model", "says"), [
    ("nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))", "'1' is BatchNorm1d"),
    ("nn.Linear(3, 1).double()", "must be float32"),
    ("nn.Linear(3, 1).requires_grad_(False)", "nothing would travel"),
])
def test_a_model_that_cannot_be_trained_privately_or_would_not_travel_is_refused(recipe_with, model, says):
    with pytest.raises(ContractError, match=says):
        initial_tensors(recipe_with(model), 0)


@pytest.mark.parametrize(("features", "labels", "says"), [
    (np.zeros((2, 3)), np.zeros(2, np.int64), "features are float64 of 2 dimensions, expected one of bool, uint8"),
    (np.float32(2), np.zeros(2, np.int64), "of 0 dimensions"),
    ({}, np.zeros(2, np.int64), "features are no array"),
    (np.zeros((2, 3), np.float32), np.zeros(3, np.int64), "labels are of 3 rows, and the features 'x' of 2"),
    (np.zeros((2, 3), np.float32), np.zeros(2), "labels are float64"),
    (np.full((2, 3), np.nan, np.float32), np.zeros(2, np.int64), "finite"),
    ({"a": np.zeros((2, 3), np.float32)}, {"a": np.zeros(2, np.int64)}, "'a' names features and labels"),
    (np.zeros((2, 3), np.float32), {"a": np.zeros(2, np.int64), "b": np.zeros(3, np.int64)}, "'b' are of 3 rows"),
])
def test_examples_of_another_form_cannot_be_built(features, labels, says):
    with pytest.raises(ContractError, match=says):
        Examples(features, labels)


@pytest.mark.parametrize(("classes", "label"), [(2, 2), (3, 3)])
def test_a_label_beyond_the_recipes_classes_is_refused_when_rows_are_encoded(write_recipe, classes, label):
    source = write_recipe().read_text()
    says = f"\nfrom fedround.learning import tasks\nTASK = tasks.Classify(classes={classes})\n"
    recipe = load_recipe(write_recipe(source if classes == 2 else source + says))
    rows = pd.DataFrame({"a": [1.0, 2.0], "b": 0.0, "c": 0.0, "y": [0, label - 1]})
    assert recipe.encode(rows).targets["y"].tolist() == [0, label - 1]
    with pytest.raises(ContractError, match=f"from 0 to {classes - 1}"):
        recipe.encode(rows.assign(y=[0, label]))


RETURNS: dict[str, tuple[str, str, str | None]] = {
    "backwards": ("numbers[::-1][::-1].copy()[:, ::-1][:, ::-1]", "label", None),
    "a negative stride": ("np.flip(np.flip(numbers, 1).copy(), 1)", "label[::-1][::-1]", None),
    "columns first": ("np.asfortranarray(numbers)", "label", None), "big-endian": ("numbers.astype('>f4')", "label", None),
    "narrow labels": ("numbers", "label.astype('int8')", None), "unsigned labels": ("numbers", "label.astype('u4')", None),
    "truths": ("numbers", "label == 1", None),
    "a tuple": ("(numbers, label)", "label", "features returns tuple, expected an array of numpy, or several by name"),
    "a table": ("rows[['x1']]", "label", "features returns DataFrame"),
    "nothing": ("None", "label", "features returns NoneType"),
    "masked": ("np.ma.masked_equal(numbers, 1)", "label", "features returns MaskedArray"),
    "a column as labels": ("numbers", "rows['y']", "labels returns Series"),
    "no rows": ("numbers[:0]", "label[:0]", "features of 0 rows for 3 rows"),
    "no columns": ("numbers[:, :0]", "label", "no columns"),
    "one number": ("np.float32(1)", "label", "features returns float32"), "an array of one": (
        "np.array(1, np.float32)", "label", "float32 of 0 dimensions"),
    "float64": ("numbers.astype(float)", "label", "features are float64 of 2 dimensions, expected one of"),
    "objects": ("numbers.astype(object)", "label", "features are object"),
    "labels with a point": ("numbers", "label.astype(float)", r"'y' \(float64\), and Classify\(\) expects 'y' \(int64\)"),
    "labels in a column": ("numbers", "label[:, None]", r"of shape \(3, 1\), and Classify\(\) expects one for each"),
    "fewer labels": ("numbers", "label[:2]", "labels are of 2 rows, and the features 'x' of 3"), "huge labels": (
        "numbers", "label.astype('u8') + np.uint64(1 << 63)", r"labels are 'y' \(uint64\)")}


@pytest.mark.parametrize("what", RETURNS)
def test_what_a_recipe_returns_is_mended_or_refused_in_words(tmp_path, what):
    features, labels, says = RETURNS[what]
    path = tmp_path / "recipe.py"
    path.write_text("import numpy as np\nNAME = 'odd'\ndef build_model(): ...\ndef features(rows):\n"
                    "    numbers, label = rows[['x1', 'x2']].to_numpy(np.float32), rows['y'].to_numpy(np.int64)\n"
                    f"    return {features}\ndef labels(rows):\n"
                    "    numbers, label = rows[['x1', 'x2']].to_numpy(np.float32), rows['y'].to_numpy(np.int64)\n"
                    f"    return {labels}\n")
    frame = pd.DataFrame({"x1": [1.0, 2.0, 3.0], "x2": [4.0, 5.0, 6.0], "y": [0, 1, 1]})
    recipe = load_recipe(path)
    if says is not None:
        with pytest.raises(ContractError, match=says):
            recipe.encode(frame)
        return
    found = recipe.encode(frame)
    assert found.inputs["x"].tolist() == frame[["x1", "x2"]].to_numpy().tolist()
    assert found.targets["y"].tolist() == [0, 1, 1]
    assert (found.inputs["x"].dtype, found.targets["y"].dtype) == (np.float32, np.int64)
    assert found.inputs["x"].flags.c_contiguous
    assert torch.from_numpy(found.inputs["x"]).shape == (3, 2)


@pytest.mark.parametrize("quiet", ["", "\nnp.seterr(all='ignore')"])
def test_attack_a_label_that_misses_is_no_label_on_any_processor(tmp_path, quiet):
    """A cast of nan gives 0 on one processor, which is a label, and the smallest number on another."""
    path = tmp_path / "recipe.py"
    path.write_text(f"import numpy as np{quiet}\nNAME = 'odd'\ndef build_model(): ...\ndef features(rows):\n"
                    "    return np.nan_to_num(rows[['x1']].to_numpy(np.float32) / np.float32(0))\ndef labels(rows):\n"
                    "    return np.abs(rows['y'].to_numpy(np.int64)) % 2\n")
    frame = pd.DataFrame({"x1": [0.0, 2.0], "y": [1.0, np.nan]})
    recipe = load_recipe(path)
    assert recipe.encode(frame[:1]).targets["y"].tolist() == [1]
    with pytest.raises(RuntimeWarning, match="in cast"):
        recipe.encode(frame)


@pytest.mark.parametrize(("body", "says"), [
    (b"\xef\xbb\xbfNAME = 'a'\n", "begins with a byte order mark"), ("NAME = 'a'\n".encode("utf-16"), "UTF-16"),
    (b"NAME = 'caf\xe9'\n", "not UTF-8 text")])
def test_a_recipe_in_another_encoding_is_one_sentence(tmp_path, body, says):
    path = tmp_path / "recipe.py"
    path.write_bytes(body)
    with pytest.raises(ContractError, match=f"recipe recipe.py: .*{says}.*save it as UTF-8"):
        load_recipe(path)
