"""Files of rows that kill a parser, or take all memory: one sentence, from whoever reads rows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedround.errors import ContractError, FedroundError, SetupError
from fedround.learning.recipe import load_recipe
from tests import small_federation
from validation import encoding, rows


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.py"
    path.write_text(small_federation.RECIPE.replace("from torch import nn\n", "").replace(
        "def build_model():\n", "def build_model():\n    from torch import nn\n"))
    return path


def test_the_fourteen_bytes_that_wrote_beyond_an_array(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"1\n1e3235360285")
    read = ("import sys; from pathlib import Path; from validation.rows import read_rows; "
            "print(len(read_rows(Path(sys.argv[1]))))")
    said = subprocess.run([sys.executable, "-c", read, str(path)], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (0, "1\n")


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small file that declares two hundred million numbers: one run of one value."""
    path = tmp_path_factory.mktemp("bombs") / "rows.parquet"
    column = pa.chunked_array([pa.repeat(pa.scalar(1.0), 1_000_000)] * 5)
    with pq.ParquetWriter(path, pa.schema([("x1", pa.float64())]), compression="zstd") as writer:
        for _ in range(40):
            writer.write_table(pa.table({"x1": column}), row_group_size=5_000_000)
    return path


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small file of few rows, each with one and the same long text."""
    path = tmp_path_factory.mktemp("bombs") / "rows.parquet"
    text = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), 3_000), pa.array(["x" * 1_000_000]))
    pq.write_table(pa.table({"x1": text}), path, store_schema=False)
    return path


def test_numbers_that_a_file_of_this_size_cannot_hold_are_not_read(declared: Path):
    assert declared.stat().st_size < 1 << 20
    with pytest.raises(ContractError, match="takes more than the .* MiB that a file of this size may take"):
        rows.read_rows(declared)


@pytest.mark.parametrize("bomb", ["declared", "heavy"])
def test_a_child_that_reads_a_bomb_takes_what_it_may_and_says_so(bomb: str, request: pytest.FixtureRequest, recipe: Path):
    path = request.getfixturevalue(bomb)
    before = os.times().children_user
    with pytest.raises((FedroundError, MemoryError)):
        encoding.encode_in_subprocess([path], recipe, load_recipe(recipe).digest)
    assert os.times().children_user >= before


def test_whoever_reads_one_file_gets_a_sentence(heavy: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "pandas")          # as in a process that has read no rows yet
    with pytest.raises((ContractError, SetupError), match=r"takes more than|ended without an answer"):
        encoding.encoded_alone(heavy, load_recipe(recipe), recipe)


def test_a_pipe_is_no_file_of_rows(tmp_path: Path):
    os.mkfifo(tmp_path / "rows.csv")
    with pytest.raises(SetupError, match="it is no file"):
        rows.read_rows(tmp_path / "rows.csv")
