"""Rows that another process reads are the rows that this one would read, and its errors are the same."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedround import sandbox
from fedround.errors import ContractError, SetupError
from fedround.learning.recipe import Recipe, load_recipe
from tests import small_federation
from tests.small_federation import SmallFederation
from validation import encoding

LIGHT = small_federation.RECIPE.replace("from torch import nn\n", "").replace(
    "def build_model():\n", "def build_model():\n    from torch import nn\n")     # a child that reads rows needs no torch


@pytest.fixture
def agreed(tmp_path: Path) -> tuple[Path, Recipe]:
    path = tmp_path / "recipe.py"
    path.write_text(LIGHT)
    return path, load_recipe(path)


def test_a_child_gives_the_same_arrays(tmp_path: Path, agreed: tuple[Path, Recipe]):
    (path, recipe), files = agreed, [tmp_path / "train.parquet", tmp_path / "validation.csv"]
    small_federation.rows(300, 1).to_parquet(files[0])
    small_federation.rows(80, 2).to_csv(files[1])
    for file, found in zip(files, encoding.encode_in_subprocess(files, path, recipe.digest), strict=True):
        here = encoding.encode(file, recipe, path)
        assert (found.inputs["x"].dtype, found.targets["y"].dtype) == (here.inputs["x"].dtype, here.targets["y"].dtype)
        assert np.array_equal(found.inputs["x"], here.inputs["x"])
        assert np.array_equal(found.targets["y"], here.targets["y"])


@pytest.mark.parametrize(("content", "error"), [(b"x1,secret\n1,2\n", ContractError), (None, SetupError)])
def test_its_errors_are_the_same_and_quote_nothing(tmp_path: Path, agreed: tuple[Path, Recipe], content, error):
    (recipe, here), path = agreed, tmp_path / "rows.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error) as there:
        encoding.encode_in_subprocess([path], recipe, here.digest)
    with pytest.raises(error) as expected:
        encoding.encode(path, here, recipe)
    assert str(there.value) == str(expected.value)
    assert "secret" not in str(there.value)


@pytest.mark.skipif(sandbox.lacking() is not None, reason=str(sandbox.lacking()))
@pytest.mark.parametrize("what", ["__import__('socket').socket()", "open(KEY).read()", "open('/etc/passwd').read()",
                                  "open('/dev/shm/fedround-was-here', 'w')", "__import__('os').kill(1, 0)"])
def test_attack_a_recipe_that_encodes_has_no_network_and_no_other_file(tmp_path: Path, what):
    """Everybody has a key beside the rows' folder; whoever runs this may read it, and the recipe may not."""
    key, recipe, rows = tmp_path / "keys" / "identity.pem", tmp_path / "recipe.py", tmp_path / "data" / "rows.csv"
    for folder in (key.parent, rows.parent):
        folder.mkdir()
    key.write_text("secret")
    rows.write_text("x1,x2,y\n1,2,1\n")
    recipe.write_text(f"KEY = {str(key)!r}\n" + LIGHT.replace("def features(rows):\n", f"def features(rows):\n    {what}\n"))
    with pytest.raises(ContractError, match=r"PermissionError|not permitted|denied"):
        encoding.encode_in_subprocess([rows], recipe, load_recipe(recipe).digest)


def test_rows_in_a_folder_in_a_pattern_and_behind_a_link_are_read_in_it(tmp_path: Path, agreed: tuple[Path, Recipe]):
    (path, recipe), parts, apart = agreed, tmp_path / "parts", tmp_path / "apart"
    for folder in (parts, apart):
        folder.mkdir()
    small_federation.rows(20, 1).to_parquet(apart / "one.parquet")
    small_federation.rows(30, 2).to_parquet(parts / "two.parquet")
    (parts / "one.parquet").symlink_to(apart / "one.parquet")
    (tmp_path / "link.parquet").symlink_to(apart / "one.parquet")
    found = encoding.encode_in_subprocess([parts, parts / "*.parquet", tmp_path / "link.parquet"], path, recipe.digest)
    assert [len(one) for one in found] == [50, 50, 20]


def test_attack_of_very_many_files_no_other_is_given_to_a_recipe(tmp_path: Path, agreed: tuple[Path, Recipe], monkeypatch):
    """Their folder is, since a command's line has an end. A key beside them would be, too."""
    (path, recipe), parts = agreed, tmp_path / "parts"
    parts.mkdir()
    for number in range(3):
        small_federation.rows(20, number).to_parquet(parts / f"{number}.parquet")
    for name in ("_SUCCESS", ".0.parquet.crc"):
        (parts / name).write_text("")
    monkeypatch.setattr(encoding, "_LONG", 10)
    asked = [parts / "*.parquet"]
    assert len(encoding.encode_in_subprocess(asked, path, recipe.digest)[0]) == 60
    (parts / "keys").mkdir()
    (parts / "keys" / "identity.pem").write_text("secret")
    with pytest.raises(ContractError, match="put the rows in a folder of their own"):
        encoding.encode_in_subprocess(asked, path, recipe.digest)


def test_another_recipe_than_the_approved_one_does_not_run(tmp_path: Path, agreed: tuple[Path, Recipe]):
    with pytest.raises(ContractError, match="digest"):
        encoding.encode_in_subprocess([tmp_path / "rows.csv"], agreed[0], "0" * 64)


def test_a_child_that_dies_is_one_sentence(tmp_path: Path, agreed: tuple[Path, Recipe], monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SetupError, match="ended without an answer"):
        encoding.encode_in_subprocess([tmp_path / "rows.csv"], agreed[0], agreed[1].digest)


def test_a_recipe_that_never_ends_is_stopped(tmp_path: Path):
    path = tmp_path / "recipe.py"
    path.write_text(LIGHT.replace("def features(rows):\n", "def features(rows):\n    while True:\n        pass\n"))
    small_federation.rows(3, 1).to_csv(tmp_path / "rows.csv")
    with pytest.raises(SetupError, match="does the recipe end"):
        encoding.encode_in_subprocess([tmp_path / "rows.csv"], path, load_recipe(path).digest, timeout_s=5)


ROUND = """
import sys
from pathlib import Path
from site_workers import service
from site_workers.round import job
from site_workers.site import open_site
work = service._with_the_accountant_apart(job(open_site(Path(sys.argv[1]))))
print(work({"run": "spring", "round": 1, "attempt": 1, "purpose": "train"}, lambda: False).message)
heavy = {"pandas", "pyarrow", "scipy", "dp_accounting", "great_expectations", "dvc", "sqlalchemy"}
print(sorted(heavy & set(sys.modules)))
"""


def test_a_process_that_has_answered_holds_no_library_of_tables_and_no_accountant(federation: SmallFederation):
    """They take 160 MB between them; children read the rows, judge them and count the privacy."""
    federation.plan()
    said = subprocess.run([sys.executable, "-c", ROUND, str(federation.root / "north")], capture_output=True, text=True,
                          check=True)
    assert said.stdout.splitlines() == ["update", "[]"]
