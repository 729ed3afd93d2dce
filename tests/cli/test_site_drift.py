"""`fedround site drift`: a site's own report over its own rows, which stays there."""

from __future__ import annotations

import json
import re

import pandas as pd

from tests import small_federation
from tests.cli.conftest import Fedround, one_sentence


def test_an_operator_sees_what_has_changed_since_the_last_round(fedround: Fedround, tmp_path, rows_are_judged_here: None):
    federation = small_federation.make(tmp_path / "small")
    folder, data = federation.root / "north", federation.root / "data" / "north"
    assert "no earlier rows" in one_sentence(fedround("site", "drift", folder))
    federation.answer("north", federation.plan())
    kept = folder / "accepted"
    assert kept.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept.iterdir())
    frame = pd.read_parquet(data / "train.parquet")
    frame.assign(x1=frame["x1"] + 3).to_parquet(data / "train.parquet")

    told = fedround("site", "drift", folder, "--json")
    assert told.exit_code == 0, told.output
    found = {column["column"]: column["drifted"] for column in json.loads(told.stdout)["columns"]}
    assert found == {"x1": True, "x2": False, "y": False}
    page = folder / "drift" / "report.html"
    assert page.stat().st_mode & 0o077 == 0
    loaded = re.findall(r"""(?:<script[^>]*src=|<link[^>]*href=|url\(|@import )["']?https?:""", page.read_text())
    assert loaded == [], "the page opens offline"
    store = [path.read_bytes() for path in (federation.root / "store").rglob("*") if path.is_file()]
    assert not any(repr(float(frame["x1"].max())).encode() in body for body in store)
