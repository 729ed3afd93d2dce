"""What `fedround status` says of a federation: who is waited for and until when, who serves, and why it cannot say."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from fedround_cli.status import _ago
from tasks.progress import Progress, write_progress
from tests.cli.conftest import Fedround
from tests.small_federation import SmallFederation

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


@pytest.mark.parametrize(("seconds", "says"), [
    (-5, "0 s ago"), (0, "0 s ago"), (119, "119 s ago"), (120, "2 minutes ago"), (7_199, "119 minutes ago"),
    (7_200, "2 hours ago"), (200_000, "2 days ago")])
def test_a_sign_of_life_is_told_in_round_words(seconds: int, says: str):
    assert _ago(NOW - timedelta(seconds=seconds), NOW) == says
    assert _ago(None, NOW) == "never"


@pytest.mark.parametrize(("late", "says"), [(False, "until"), (True, "and should have gone on at")])
def test_whom_a_round_waits_for_and_until_when(fedround: Fedround, federation: SmallFederation, late: bool, says: str):
    until = datetime.now(UTC) + timedelta(hours=-1 if late else 1)
    write_progress(federation.root / "coordinator", Progress(
        run="spring", round=4, stage="train", cohort=3, updates=1, waiting=("east", "south"), until=until))
    said = fedround("status", "--home", federation.root / "stack", "-c", federation.root / "coordinator")
    assert said.exit_code == 0
    words = " ".join(said.stdout.split())
    assert "round 4 of run 'spring': train; 1 of 3 sites have answered;" in words
    assert f"waits for east, south {says} {until:%H:%M:%S} UTC" in words
    assert "members the Prefect API at http://127.0.0.1:9/api does not answer" in words


@pytest.mark.parametrize(("stage", "problem"), [("done", None), ("failed", "2 of 3 sites gave an update")])
def test_what_came_of_the_last_round(fedround: Fedround, federation: SmallFederation, stage: str, problem: str | None):
    write_progress(federation.root / "coordinator", Progress(run="spring", round=4, stage=stage, problem=problem))
    said = fedround("status", "--home", federation.root / "stack", "-c", federation.root / "coordinator").stdout
    assert f"no round is in progress; the last was round 4 of run 'spring': {stage}" in said
    assert problem is None or problem in " ".join(said.split())


def test_a_script_reads_the_same(fedround: Fedround, federation: SmallFederation):
    write_progress(federation.root / "coordinator", Progress(run="spring", round=4, stage="train", waiting=("east",)))
    said = json.loads(fedround("status", "--home", federation.root / "stack", "-c", federation.root / "coordinator",
                               "--json").stdout)
    assert said["progress"]["waiting"] == ["east"]
    assert said["members"] == []
    assert "does not answer" in said["problem"]
