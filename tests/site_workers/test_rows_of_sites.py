"""A site's rows, as files of many kinds: they take part in rounds, or a finding and a signed refusal say why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from fedround import layout
from fedround.privacy import ledger
from fedround.statistics.partitions import Partition
from site_workers import accepted, preflight
from site_workers.rows import read_site_rows, rows_of
from tests.cli.bad_input import edit
from tests.small_federation import SmallFederation


def refusal(federation: SmallFederation) -> dict[str, object]:
    folder = (federation.root / "store" / layout.refusals("north", "spring", 1, 1, "train")).parent
    return json.loads(sorted(folder.glob("refusal-*"))[-1].read_bytes())["body"]


def train_of(federation: SmallFederation) -> Path:
    return federation.root / "data" / "north" / "train.parquet"


def in_weeks(path: Path) -> Path:
    """The rows of a file as a folder of two weeks, the first as CSV; the folder, in place of the file."""
    frame, folder = pd.read_parquet(path), path.with_name("weeks")
    for day, rows in (("2019-01-07", frame[:100]), ("2019-01-14", frame[100:])):
        (folder / f"day={day}").mkdir(parents=True)
        if day == "2019-01-07":
            rows.to_csv(folder / f"day={day}" / "rows.csv", index=False)
        else:
            rows.to_parquet(folder / f"day={day}" / "rows.parquet")
    return folder


def test_a_folder_of_weeks_takes_part_as_the_file_did_and_a_new_week_is_seen(federation: SmallFederation):
    site = federation.site("north")
    before = read_site_rows(site)
    folder = in_weeks(train_of(federation))
    validation = federation.root / "data" / "north" / "validation.parquet"
    pd.read_parquet(validation).assign(day="2019-01-14").to_parquet(validation)
    edit(site.folder / "site.toml", "train.parquet", "weeks")
    site = federation.site("north")
    now = read_site_rows(site)
    assert (now.train.inputs["x"] == before.train.inputs["x"]).all()
    assert federation.answer("north", federation.plan()) == "update"
    kept = accepted.files(site.folder)
    assert kept == (site.folder / "accepted" / "train", site.folder / "accepted" / "validation.parquet")
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept[0].rglob("*"))
    (folder / "day=2019-01-21").mkdir()
    pd.read_parquet(validation)[["x1", "x2", "y"]][:7].to_csv(folder / "day=2019-01-21" / "rows.csv.gz", index=False)
    assert len(read_site_rows(site).train) == 307
    week = Partition(column="day", by="week", name="2019-w04")
    assert len(rows_of(site, week).train) == 7


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder": (lambda path: path.mkdir(), "as a folder it has no .parquet or .csv file"),
    "bad disk": (lambda path: path.symlink_to("/proc/self/mem"), "cannot be read"),
    "damaged": (lambda path: path.write_bytes(b"PAR1"), "not a readable parquet file"),
    "lists": (lambda path: pd.DataFrame({"x1": [[1]] * 60, "x2": 0.0, "y": 1}).to_parquet(path), "holds lists")}


@pytest.mark.parametrize("odd", ODD)
def test_whatever_lies_there_is_a_finding_and_a_signed_refusal(federation: SmallFederation, odd: str, caplog):
    path, planned, site = train_of(federation), federation.plan(), federation.site("north")
    path.unlink()
    make, says = ODD[odd]
    make(path)
    assert federation.answer("north", planned) == "refusal"
    assert (refusal(federation)["reason"], ledger.read(site.ledger).charges) == ("data", ())
    assert says in caplog.text
    findings = {found.check: found for found in preflight.preflight(site.folder)}
    for check in ("rows", "contract"):
        assert not findings[check].ok
        assert says in findings[check].detail
        assert "train.parquet" in findings[check].detail


def test_a_finding_names_the_file_and_the_column(federation: SmallFederation):
    site, validation = federation.site("north"), federation.root / "data" / "north" / "validation.parquet"
    pd.read_parquet(validation).drop(columns="x1").to_parquet(validation)
    (finding,) = [found for found in preflight.preflight(site.folder) if found.check == "contract"]
    assert not finding.ok
    assert f"{validation} fails x1_in_range" in finding.detail
    assert "train.parquet" not in finding.detail
