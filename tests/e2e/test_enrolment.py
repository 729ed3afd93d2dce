"""A new site joins while a campaign runs: commands at both members, its process, and nothing else is started or stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedround.signing import digest
from infra.stack.processes import recorded
from tests.e2e.conftest import Federation, wait
from tests.e2e.test_faults import completed, is_running
from tests.small_federation import NAMES, rows

pytestmark = pytest.mark.stack

ROUNDS = 3


@pytest.fixture
def west(real: Federation, tmp_path: Path) -> Path:
    """Where the new site will be, with its rows; afterwards it is no member any more."""
    rows(250, 9).to_parquet(tmp_path / "train.parquet")
    rows(80, 59).to_parquet(tmp_path / "validation.parquet")
    yield tmp_path
    real.here("federation", "revoke", "west", "-c", real.machine.coordinator)
    for process in real.started:
        if str(tmp_path / "site") in process.args:
            process.terminate()
            process.wait()


def status(real: Federation) -> dict:
    return json.loads(real.works("status", "-c", real.machine.coordinator, "--home", real.machine.home, "--json"))


def enrol(real: Federation, folder: Path) -> None:
    """What the two operators type. The coordinator's hands over the invitation, the site's the public key."""
    machine = real.machine
    invitation, agreed = folder / "west.invitation.toml", machine.coordinator / "approved"
    real.works("federation", "invite", "west", "-c", machine.coordinator, "--home", machine.home, "--output", invitation)
    approved = [part for name in ("recipe.py", "contract.json")
                for part in ("--digest", digest((agreed / name).read_bytes()))]
    real.works("site", "init", folder / "site", "--invitation", invitation, "--train", folder / "train.parquet",
               "--validation", folder / "validation.parquet", "--max-epsilon", 900, "--min-rows", 50, "--yes", *approved)
    key = real.works("site", "key", folder / "site").strip()
    real.works("federation", "add", "west", "--key", key, "--weight", 250, "-c", machine.coordinator)


def test_a_site_that_is_enrolled_while_a_campaign_runs_has_its_update_in_a_later_round_and_nothing_restarts(
        real: Federation, west: Path, run: str):
    before = recorded(real.machine.home), [real.pid(name) for name in NAMES]
    with real.held(real.machine.site("north")):
        campaign = real.start("federated-training", run=run, rounds=ROUNDS)
        wait(lambda: is_running(real, run, "north"), "the first round")
        wait(lambda: status(real)["progress"]["waiting"] == ["north"], "everybody but who is held")
        assert {one["name"]: one["serves"] for one in status(real)["members"]} == dict.fromkeys(["coordinator", *NAMES], True)
        enrol(real, west)
        real.spawn("site", "start", west / "site")
        wait(lambda: "serves rounds" in (real.machine.home / "logs" / "spawned.log").read_text(), "the new site's process")
    completed(real, campaign)
    assert set(real.record(run, 1)["outcomes"]) == set(NAMES), "the first round's plan was signed before"
    assert real.record(run, ROUNDS)["outcomes"] == dict.fromkeys([*NAMES, "west"], "updated")
    assert (recorded(real.machine.home), [real.pid(name) for name in NAMES]) == before, "nothing was started again"
    told = json.loads(real.works("verify", run, "--as", real.machine.coordinator, "--recompute", "--json"))
    assert [proof["recomputed"] for proof in told["rounds"]] == [False] + [True] * ROUNDS
    assert "west" in told["rounds"][-1]["updates"]
    assert any(change["kind"] == "enrol" and change["site"] == "west" for entry in told["log"] for change in entry["changes"])
