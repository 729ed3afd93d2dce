"""A site whose rows come from a database: it is asked once for each run, and why it fails stays with the operator."""

from __future__ import annotations

import json
import sqlite3
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedround.errors import ContractError, SetupError
from infra.settings import DataSettings, SiteSettings, load_toml, save_toml
from site_workers import database, rows
from site_workers.enrol import create_site
from site_workers.preflight import preflight
from tasks.invitations import invite_site
from tests.small_federation import SmallFederation
from validation import query

PASSWORD = "SECRET-PASSWORD-78"


def fill(data: Path, **changes: object) -> None:
    """The site's rows, in a database."""
    frames = [pd.read_parquet(data / f"{side}.parquet").assign(held_out=place, **changes)
              for place, side in enumerate(("train", "validation"))]
    with sqlite3.connect(data / PASSWORD) as connection:
        pd.concat(frames, ignore_index=True).reset_index(names="id").to_sql("people", connection, if_exists="replace",
                                                                            index=False)


@pytest.fixture
def data(federation: SmallFederation, monkeypatch) -> Path:
    """Where the rows of site "north" are, which comes to read them from a database."""
    folder, data = federation.root / "north", federation.root / "data" / "north"
    fill(data)
    for place, side in enumerate(("train", "validation")):
        (data / f"{side}.sql").write_text(f"SELECT x1, x2, y FROM people WHERE held_out = {place} ORDER BY id")
    settings = load_toml(SiteSettings, folder / "site.toml")
    named = settings.data.model_copy(update={side: str(data / f"{side}.sql") for side in ("train", "validation")})
    save_toml(settings.model_copy(update={"data": named}), folder / "site.toml", "")
    database.keep_url(folder, named, {database.VARIABLE: f"sqlite:///{data / PASSWORD}"})
    monkeypatch.setattr(query, "ask_in_subprocess", lambda asked, url, timeout_s: query.ask(
        {one: (query.checked(one), into) for one, into in asked.items()}, url))
    return data


def test_rows_from_a_database_are_those_of_the_files(federation: SmallFederation, data: Path):
    planned = federation.plan()
    assert federation.answer("north", planned) == "update"
    held = rows.read_site_rows(federation.site("north"))
    for side, found in (("train", held.train), ("validation", held.validation)):
        frame = pd.read_parquet(data / f"{side}.parquet")
        np.testing.assert_array_equal(found.inputs["x"], frame[["x1", "x2"]].to_numpy("float32"))
        np.testing.assert_array_equal(found.targets["y"], frame["y"])
    assert stat.S_IMODE((federation.root / "north" / "keys" / "database.toml").stat().st_mode) == 0o600
    assert stat.S_IMODE((federation.root / "north" / "snapshot").stat().st_mode) == 0o700


def test_a_run_sees_the_rows_of_its_beginning_and_the_next_run_the_new_ones(federation: SmallFederation, data: Path):
    assert federation.answer("north", federation.plan()) == "update"
    fill(data, x1=0.25)
    for name in federation.names[1:]:
        federation.answer(name, federation.plan())
    federation.commit(federation.plan())
    assert federation.answer("north", federation.plan()) == "update"        # round 2 of the same run
    assert not (rows.read_site_rows(federation.site("north")).train.inputs["x"][:, 0] == 0.25).any()
    database.of_run(federation.site("north"), "summer")
    assert (rows.read_site_rows(federation.site("north")).train.inputs["x"][:, 0] == 0.25).all()


def test_attack_a_database_that_fails_tells_nobody_why(federation: SmallFederation, data: Path, caplog):
    """The refusal is the same for whatever fails; old rows do not stand in for those that cannot be read."""
    assert federation.answer("north", federation.plan()) == "update"
    (data / PASSWORD).unlink()
    planned = federation.plan("summer")
    assert federation.answer("north", planned) == "refusal"
    refusals = list((federation.root / "store").rglob("refusal-*"))
    assert [json.loads(path.read_bytes())["body"]["detail"] for path in refusals] == [
        "the rows cannot be read; the site's operator sees why"]
    assert "no such table: people" in caplog.text
    everything = b"".join(path.read_bytes() for path in (federation.root / "store").rglob("*") if path.is_file())
    assert b"people" not in everything.replace(b'"people"', b"")
    assert PASSWORD not in caplog.text
    fill(data)
    database.of_run(federation.site("north"), "summer")     # asked again, since nothing was answered
    assert len(rows.read_site_rows(federation.site("north")).train) == 300


def test_preflight_asks_anew_and_says_what_to_mend(federation: SmallFederation, data: Path):
    findings = {one.check: one for one in preflight(federation.root / "north")}
    assert findings["rows"].ok
    (data / "train.sql").write_text("SELECT x1, x2, y FROM people")
    findings = {one.check: one for one in preflight(federation.root / "north")}
    assert "no ORDER BY" in findings["rows"].detail
    (federation.root / "north" / "keys" / "database.toml").chmod(0o644)
    findings = {one.check: one for one in preflight(federation.root / "north")}
    assert "can be read by other users" in findings["rows"].detail


def test_a_new_site_asks_at_once_and_leaves_nothing_half_made(federation: SmallFederation, data: Path, monkeypatch):
    invitation, folder = invite_site(federation.root / "coordinator", "fourth", None), federation.root / "fourth"
    named = DataSettings(dataset="others", train=str(data / "train.sql"), validation=str(data / "validation.sql"))
    with pytest.raises(SetupError, match=database.VARIABLE):
        create_site(folder, invitation, named, max_epsilon=8.0, delta_dp=1e-5)
    assert not folder.exists()
    monkeypatch.setenv(database.VARIABLE, f"sqlite:///{data / PASSWORD}")
    create_site(folder, invitation, named, max_epsilon=8.0, delta_dp=1e-5)
    assert len(rows.read_site_rows(federation.site("fourth")).train) == 300
    with pytest.raises(ContractError, match="is among both"):
        create_site(federation.root / "far", invitation, named.model_copy(update={"validation": named.train}),
                    max_epsilon=8.0, delta_dp=1e-5)
    assert not (federation.root / "far").exists()
