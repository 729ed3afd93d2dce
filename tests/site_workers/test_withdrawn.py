"""Somebody withdraws consent: the row is deleted from the site's file, and is in nothing that is done afterwards."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from site_workers.rows import read_site_rows
from tests.small_federation import SmallFederation

MARK = 3.14159265


def marked(folder: Path) -> list[str]:
    """The files of a folder that hold the row: tables of rows, and whatever else has its number in bytes or digits."""
    found = []
    for path in filter(Path.is_file, folder.rglob("*")):
        if path.suffix == ".parquet":
            held = bool((pd.read_parquet(path)["x2"] == MARK).any())
        else:
            held = str(MARK).encode() in path.read_bytes()
        found += [path.name] if held else []
    return found


def test_a_row_that_is_taken_out_is_in_no_round_after_and_in_no_copy(federation: SmallFederation):
    north = federation.root / "north"
    path = federation.site("north").row_files[0]
    frame = pd.read_parquet(path)
    frame.loc[7, "x2"] = MARK
    frame.to_parquet(path)
    federation.round()
    assert marked(north) == ["train.parquet"]          # accepted/: what the last round was answered with
    assert marked(federation.root / "store") == []

    frame.drop(index=7).to_parquet(path)
    rows = read_site_rows(federation.site("north"))
    assert len(rows.train) == len(frame) - 1
    assert not (rows.train.inputs["x"] == pd.Series([MARK], dtype="float32")[0]).any()
    charged = (north / "ledger.jsonl").read_text()
    federation.round()
    assert marked(federation.root) == []
    assert (north / "ledger.jsonl").read_text().startswith(charged)     # nothing is given back
