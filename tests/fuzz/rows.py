"""`python -m tests.fuzz.rows FILES`: read files of rows as a site's child does, under its limits, and say how each ended."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from fedround.bundle import Column
from fedround.errors import ContractError
from site_workers import rows_in_parts
from validation import encoding, judging, rows
from validation.contract import Check

SECRET = "a-value-of-a-row"


def _typed(path: Path) -> None:
    check = Check(id="x1", type="expect_column_values_to_be_of_type", kwargs={"column": "x1", "type_": "float64"})
    frame = rows.read_rows(path)
    if "x1" in frame.columns:
        judging.of_another_type(frame, check)


READERS: tuple[Callable[[Path], object], ...] = (
    lambda path: encoding.columns([path], ("x1", "y")), lambda path: encoding.prints(path, "k" * 16), _typed,
    lambda path: list(rows_in_parts.read(path, (Column(name="x1", kind="number"), Column(name="x2", kind="other")), 2)))
"""Everything that reads rows, but for Great Expectations, which costs seconds."""


def ended(path: Path) -> str:
    """"read", if somebody could; "refused"; or what was raised that is none of ours."""
    ends = [_ended(reader, path) for reader in READERS]
    return next((end for end in ends if end not in {"read", "refused"}), "read" if "read" in ends else "refused")


def _ended(reader: Callable[[Path], object], path: Path) -> str:
    try:
        reader(path)
    except ContractError as error:
        return "refused" if len(str(error)) < 1_000 and SECRET not in str(error) else "no sentence"
    except MemoryError:
        return "refused"            # who has started the child puts it into words
    except BaseException as error:  # of whatever kind: it is what the test is about
        return f"{type(error).__name__}: {error}".replace("\n", " ")
    return "read"


if __name__ == "__main__":
    paths = [Path(name) for name in sys.argv[1:]]
    rows.limited_by(paths)
    for path in paths:
        print(ended(path), flush=True)
