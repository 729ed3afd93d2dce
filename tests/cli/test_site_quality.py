"""`fedround site check`: what an operator is told of labels and far-out values, and that nobody else is."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from site_workers import outbox
from tests.cli.conftest import Fedround
from tests.small_federation import SmallFederation


def with_policy(folder: Path, least: int) -> None:
    path = folder / "policy.toml"
    path.write_text(path.read_text().replace("min_class_rows = 0", f"min_class_rows = {least}"))


def labels(fedround: Fedround, folder: Path) -> dict:
    return next(one for one in json.loads(fedround("site", "check", folder, "--json").stdout) if one["check"] == "labels")


def test_an_operator_sees_labels_and_values_that_are_worth_a_look(fedround: Fedround, federation: SmallFederation,
                                                                  monkeypatch: pytest.MonkeyPatch):
    train = federation.root / "data" / "north" / "train.parquet"
    frame = pd.read_parquet(train)
    frame.loc[:2, "x2"] = 1e6
    frame.to_parquet(train)
    said = json.loads(fedround("site", "check", federation.root / "north", "--json").stdout)
    found = next(one for one in said if one["check"] == "quality")
    assert found["columns"][0] | {"low": 0, "high": 0} == {"column": "x2", "low": 0, "high": 0, "outside": 3, "rows": 380}
    told = found["labels"]
    assert sum(one["rows"] for one in told["labels"]) == told["looked_at"] == 300
    assert all(one["doubtful"] is not None for one in told["labels"])
    assert told["recognised"] > 0.6
    for width in (60, 80, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = fedround("site", "check", federation.root / "north").output.splitlines()
        table = [line for line in lines if line[:1] in "┏┃┡│└"]
        assert any("contradicted" in line for line in table)
        assert max(map(len, table)) <= width


def test_attack_too_few_rows_of_a_label_is_for_the_operator_and_changes_nothing_that_leaves(
        fedround: Fedround, federation: SmallFederation, tmp_path: Path):
    """A refusal for it would tell, exactly and free, whether a label has one row more or less."""
    twin, planned = federation.copy(tmp_path / "twin"), federation.plan()
    twin_planned = twin.plan()
    with_policy(federation.root / "north", 10_000)
    said = labels(fedround, federation.root / "north")
    assert not said["ok"]
    assert "the policy asks for 10000 of each label; 2 labels have fewer: do not join yet" in said["detail"]
    assert federation.answer("north", planned) == twin.answer("north", twin_planned) == "update"
    sent = [{key: json.loads(outbox.find(one.site("north").safe, plan.plan).answer)["body"][key]
             for key in ("checks", "releases", "update", "charges")}
            for one, plan in ((federation, planned), (twin, twin_planned))]
    assert sent[0] == sent[1]
    with_policy(twin.root / "north", 50)
    said = labels(fedround, twin.root / "north")
    assert (said["ok"], "the policy asks for 50" in said["detail"]) == (True, True)


def test_rows_that_cannot_be_read_are_said_once_and_have_no_table(fedround: Fedround, federation: SmallFederation):
    (federation.root / "data" / "north" / "train.parquet").unlink()
    told = json.loads(fedround("site", "check", federation.root / "north", "--json").stdout)
    assert "quality" not in {one["check"] for one in told}
