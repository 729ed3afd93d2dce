"""`fedround site check` ends with a small picture of the rows, which stays with the operator."""

from __future__ import annotations

import dataclasses
import json

import pandas as pd
import pytest

from site_workers import picture
from tests.cli.conftest import Fedround
from tests.small_federation import SmallFederation
from validation import encoding


def test_the_operator_sees_what_the_recipe_sees(fedround: Fedround, federation: SmallFederation, monkeypatch):
    folder, data = federation.root / "north", federation.root / "data" / "north"
    train = pd.read_parquet(data / "train.parquet")
    train.assign(x1=train["x1"].where(train.index >= 30), day="2019-01-07", **{"a name that is longer than most are": 7}
                 ).to_parquet(data / "train.parquet")
    found = picture.picture(folder)
    assert (found.sides["train"].rows, found.sides["train"].idle) == (300, 30)
    assert found.sides["train"].groups["label 1"] == pytest.approx(train["y"][30:].mean())
    assert found.sides["validation"].high[0] == pytest.approx(pd.read_parquet(data / "validation.parquet")["x1"].max())
    column = {one.name: one for one in found.files["train"].columns}
    assert (column["x1"].missing, column["y"].low, column["y"].high, column["day"].kind) == (0.1, "0", "1", "text")
    assert json.loads(json.dumps(dataclasses.asdict(found.files["train"])))["rows"] == 300
    for width in (60, 80, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = fedround("site", "check", folder).stdout.splitlines()
        shown = lines[next(place for place, line in enumerate(lines) if line.startswith("Your rows")):]
        assert max(map(len, shown)) <= width
        assert any("feature 1" in line for line in shown)
        assert any("absent" in line for line in shown)
    assert "Your rows" not in fedround("site", "check", folder, "--json").output


def test_a_child_paints_the_same_picture(federation: SmallFederation, monkeypatch):
    path = federation.root / "data" / "north" / "train.parquet"
    here = encoding.pictures_alone([path])
    monkeypatch.delitem(__import__("sys").modules, "pandas")
    assert encoding.pictures_alone([path]) == here


def test_a_finding_says_what_to_do_about_numbers_with_a_comma(fedround: Fedround, federation: SmallFederation):
    folder, path = federation.root / "north", federation.root / "data" / "north" / "train.parquet"
    frame = pd.read_parquet(path)
    path.unlink()
    frame.assign(x1=[f"{value:.2f}".replace(".", ",") for value in frame["x1"]]).to_csv(path.with_suffix(".csv"), index=False)
    (folder / "site.toml").write_text((folder / "site.toml").read_text().replace("train.parquet", "train.csv"))
    findings = {one["check"]: one for one in json.loads(fedround("site", "check", folder, "--json").stdout)}
    assert not findings["rows"]["ok"]
    assert "train.csv: column 'x1' holds numbers that are written with a decimal comma" in findings["rows"]["detail"]
    assert "column 'x1' holds numbers that are written" in " ".join(fedround("site", "check", folder).stdout.split())
