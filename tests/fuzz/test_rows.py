"""The law for files of rows: whatever is in one, the child that reads it says so in a sentence, or reads it, and lives.

One child reads all of them, since a child costs a second; a site's has one file, and the same limits.
"""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from tests.fuzz.effort import TIMES, examples
from tests.fuzz.mutations import mutations
from tests.fuzz.rows import SECRET

CORPUS = sorted((Path(__file__).parent / "corpus").glob("rows--*"))
CSV = f"x1,x2,y\n1.5,{SECRET},0\n-2e3,b,1\n,,0\n".encode()


def parquet() -> bytes:
    """The same rows."""
    body = io.BytesIO()
    pq.write_table(pa.table({"x1": [1.5, -2e3, None], "x2": [SECRET, "b", None], "y": [0, 1, 0]}), body)
    return body.getvalue()


def mutated(honest: bytes, number: int) -> list[bytes]:
    found: list[bytes] = []

    @examples(number)
    @given(mutations(honest))
    def collect(other: bytes) -> None:
        found.append(other)

    collect()
    return found


def read(paths: list[Path]) -> list[str]:
    child = subprocess.run([sys.executable, "-m", "tests.fuzz.rows", *map(str, paths)], capture_output=True, text=True,
                           cwd=Path(__file__).parents[2], check=False)
    return [*child.stdout.splitlines(), *(["it died"] if child.returncode != 0 else [])]


@pytest.mark.parametrize("turn", range(TIMES))
def test_files_of_rows_are_read_or_refused_whatever_is_in_them(tmp_path: Path, turn: int):
    found = {}
    for suffix, honest in (("csv", CSV), ("parquet", parquet())):
        bodies = [honest, *mutated(honest, 20)]
        found |= {tmp_path / f"{number}.{suffix}": body for number, body in enumerate(bodies)}
    for path, body in found.items():
        path.write_bytes(body)
    paths = [*CORPUS, *found]
    said = dict(zip(paths, read(paths), strict=False))
    wrong = {path.name: (said.get(path, "not come to"), found.get(path, b"")[:2_000]) for path in paths
             if said.get(path) not in {"read", "refused"}}
    assert not wrong
    assert said[tmp_path / "0.csv"] == said[tmp_path / "0.parquet"] == "read"
