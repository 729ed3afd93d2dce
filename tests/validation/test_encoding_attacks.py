"""What a hostile recipe can do in the process that encodes rows: it answers in another form, does not end, or is not run."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fedround import sandbox
from fedround.errors import ContractError, SetupError
from fedround.learning.described import Described, described, recipe_of
from fedround.learning.examples import Examples
from fedround.learning.recipe import load_recipe
from fedround.learning.tasks import Classify, Regress
from fedround.values import parse
from tests.small_federation import rows
from validation import encoding
from validation.answers import ChildSaid
from validation.encoding import _check_labels

apart = pytest.mark.skipif(sandbox.lacking() is not None, reason=str(sandbox.lacking()))

LIGHT = '''
import numpy as np
NAME = "tiny"
def features(rows):
    return rows[["x1", "x2"]].to_numpy(np.float32)
def labels(rows):
    return rows["y"].to_numpy(np.int64)
def build_model():
    pass
'''
SAYS = '''
import os
for one in range(3, 40):
    try: os.write(one, BODY)
    except OSError: pass
os._exit(0)
'''


def encoded(folder: Path, code: str, **changes: object) -> list[Examples]:
    recipe, file = folder / "recipe.py", folder / "rows.csv"
    recipe.write_text(LIGHT + code)
    if not file.exists():
        rows(20, 1).to_csv(file)
    return encoding.encode_in_subprocess([file], recipe, hashlib.sha256(recipe.read_bytes()).hexdigest(), **changes)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen]:
    """All processes that were started since."""
    found, start = [], subprocess.Popen

    def started(*arguments, **more):
        found.append(start(*arguments, **more))
        return found[-1]

    monkeypatch.setattr(subprocess, "Popen", started)
    return found


# -- what does not end -------------------------------------------------------------------------------------------------


@apart
def test_attack_it_starts_no_process(tmp_path: Path):
    """One that it leaves behind would hold the line on which its answer is waited for."""
    code = """
import os, subprocess
could = []
for attempt in (os.fork, lambda: subprocess.Popen(["/bin/sleep", "9"]), lambda: os.execv("/bin/true", ["true"]),
                lambda: os.posix_spawn("/bin/true", ["true"], {})):
    try:
        attempt()
        could.append(attempt)
    except PermissionError:
        pass
if could:
    raise ValueError(could)
"""
    assert len(encoded(tmp_path, code)[0]) == 20


def test_attack_it_ends_when_its_answer_is_read(tmp_path: Path, started: list[subprocess.Popen]):
    code = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()"
    assert len(encoded(tmp_path, code)[0]) == 20
    assert started[-1].returncode == -9


# -- answers of another form -------------------------------------------------------------------------------------------


@apart
@pytest.mark.parametrize(("body", "error", "words"), [
    (json.dumps({"error": "ContractError", "message": "Ada\nWARNING fedround.site forged\x1b[2J"}).encode() + b"\n",
     ContractError, "^Ada WARNING fedround.site forged"),
    (b"x" * 100 + b"\n", SetupError, "ended without an answer"),
    (b"{}\n[]\n", SetupError, "ended without an answer")], ids=["words", "no line", "other files"])
def test_attack_its_answer_is_its_own(tmp_path: Path, body: bytes, error: type[Exception], words: str):
    with pytest.raises(error, match=words) as found:
        encoded(tmp_path, f"BODY = {body!r}" + SAYS)
    assert found.value.args[0].isprintable()


def npy(array: np.ndarray) -> bytes:
    made = io.BytesIO()
    np.save(made, array)
    return made.getvalue()


X, Y, THERE = npy(np.zeros((3, 2), np.float32)), npy(np.zeros(3, np.int64)), npy(np.ones(3, bool))
NAMES = b'[[["x"],["y"]]]\n'


BODIES = [
    b"", b"\n", b"7\n", b"{}\n", b"[]\n", b"[7]\n", b"[[[],[],[]]]\n", b"[" * 99_999 + b"\n",
    b'"' + b"x" * (2 << 20) + b'"\n',
    NAMES, NAMES + X, NAMES + b"cos\nsystem\n(S'touch canary'\ntR.",
    NAMES + X + Y + THERE.replace(b"\1\1\1", b"\1\2\1"),
    NAMES + X + Y[:-1],
    NAMES + b"\x93NUMPY\x01\x00\x76\x00" + b"(" * 117 + b"\n", NAMES + b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 0xFFFF,
    NAMES + X.replace(b"(3, 2)", b"(3,-2)"), NAMES + X.replace(b"'<f4'", b"'|O4'")]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_attack_arrays_that_are_none(tmp_path: Path, body: bytes):
    file = tmp_path / "rows.csv"
    file.write_text("x1,x2,y\n1,2,1\n")
    assert len(ChildSaid(io.BytesIO(NAMES + X + Y + THERE)).examples([file])[0]) == 3
    with pytest.raises(ValueError, match=r"."):
        ChildSaid(io.BytesIO(body)).examples([file])


@pytest.mark.parametrize("arrays", [
    (X, npy(np.zeros(4, np.int64)), THERE), (X, Y, npy(np.ones(3, np.int64))), (X, Y, npy(np.ones((3, 1), bool))),
    (npy(np.full((3, 2), np.nan, np.float32)), Y, THERE), (npy(np.zeros((3, 2))), Y, THERE),
    (npy(np.zeros((3, 0), np.float32)), Y, THERE), (npy(np.array(1.0, np.float32)), Y, THERE),
    (npy(np.zeros(3, "S4")), Y, THERE), (npy(np.zeros(3, [("a", "f4")])), Y, THERE)])
def test_attack_rows_that_are_none(tmp_path: Path, arrays: tuple[bytes, ...]):
    with pytest.raises(ContractError):
        ChildSaid(io.BytesIO(NAMES + b"".join(arrays))).examples([tmp_path / "rows.csv"])


def test_attack_an_answer_is_no_longer_than_what_its_process_may_hold(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(encoding.gate, "memory_for", lambda paths: 10_000)
    giant = npy(np.zeros((10_000, 1), np.float32))
    with pytest.raises(ValueError, match="no array"):
        ChildSaid(io.BytesIO(NAMES + giant + Y + THERE)).examples([tmp_path / "rows.csv"])


@pytest.mark.parametrize("label_N", [
    np.array([0, 1, 2]), np.array([0, 1, -1]), np.zeros((3, 2), np.int64), np.zeros((3, 1), np.int64), np.zeros(3, np.int32),
    np.zeros(3, np.float32), np.array([0, 1, 1 << 62])])
def test_attack_labels_beyond_those_that_there_are(label_N: np.ndarray):
    x = np.zeros((3, 2), np.float32)
    _check_labels(Examples(x, np.array([0, 1, 1])), Classify(), "tiny")
    with pytest.raises(ContractError, match="labels"):
        _check_labels(Examples(x, label_N), Classify(), "tiny")
    with pytest.raises(ContractError, match="labels"):
        _check_labels(Examples(x, {"time": np.ones(3, np.float32)}), Regress(bounds=(0.0, 1.0)), "tiny")


# -- a file that need not run ------------------------------------------------------------------------------------------


DECLARED = '''
from fedround.learning import columns, encoding
from fedround.learning.columns import Numeric
from fedround.learning.trees.spec import Trees
import numpy as np

NAME = "declared"
COLUMNS = (Numeric("x1", low=-9, high=9), Numeric("x2", low=-9, high=9))
TARGET = "y"
TREES = Trees(depth=2)

def first_of_all(self, rows):
    """The first row's numbers in every row's place."""
    found, good = ENCODE(self, rows)
    return np.repeat(found[:1], len(found), axis=0), good

ENCODE = columns.Columns.encode
'''


@apart
def test_attack_a_recipe_that_declares_its_columns_is_not_run_where_rows_are(tmp_path: Path):
    """So the promise to a record of what trees let out holds whatever else stands in the file."""
    recipe, file = tmp_path / "recipe.py", tmp_path / "rows.csv"
    rows(20, 1).to_csv(file)
    recipe.write_text(DECLARED)
    honest = load_recipe(recipe)
    apart = recipe_of(parse(Described, described(honest), "recipe"), honest.digest, None)
    recipe.write_text(DECLARED + "columns.Columns.encode = first_of_all\n")
    hostile = hashlib.sha256(recipe.read_bytes()).hexdigest()
    (through_the_file,) = encoding.encode_in_subprocess([file], recipe, hostile)
    assert len(np.unique(through_the_file.inputs["x"], axis=0)) == 1
    (found,) = encoding.encoded([file], apart, recipe)
    assert len(np.unique(found.inputs["x"], axis=0)) == 20
    assert found.digest == encoding.encode(file, honest, recipe).digest
