"""Regions live: real servers, six sites, and two regional coordinators that are processes with pools and credentials of their
own. One of them is killed, and comes back.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from infra.history import read_commit
from infra.invitations import RegionInvitation
from infra.settings import load_federation, load_toml
from tests.e2e.conftest import Federation
from tests.e2e.founding import with_members

pytestmark = pytest.mark.stack

REGIONS = {"hills": ("ash", "cedar", "yew"), "plains": ("birch", "elm", "fir")}
SITES = tuple(sorted(name for members in REGIONS.values() for name in members))


@pytest.fixture(scope="module")
def six(short_folder: Path, rows_are_judged_here: None) -> Iterator[Federation]:
    """Six sites in two regions, a quorum of three."""
    with with_members(short_folder / "regions", SITES, quorum=3) as federation:
        machine, home = federation.machine, federation.machine.home
        for name, of in REGIONS.items():
            among = [word for member in of for word in ("--member", member)]
            typed(federation, "region", "invite", name, *among, "--home", home, "--coordinator", machine.coordinator,
                  "--output", home / f"{name}.toml")
            typed(federation, "region", "init", machine.site(name), "--invitation", home / f"{name}.toml")
            key = typed(federation, "region", "key", machine.site(name)).strip()
            typed(federation, "region", "mandate", name, "--key", key, *among, "--coordinator", machine.coordinator)
        federation.start_processes()
        yield federation


def typed(federation: Federation, *words: object) -> str:
    done = federation.here(*words)
    assert done.exit_code == 0, done.output
    return str(done.stdout)


def committed(six: Federation, run: str, started: UUID, number: int) -> dict[str, str | None]:
    """What the commit says of the regions."""
    ended = six.ended(started)
    assert ended.state.is_completed(), ended.state.message
    key = load_federation(six.machine.coordinator / "federation.toml").coordinator
    commit = read_commit(six.store, run, number, key).commit
    return {told.region: None if told.partial is None else told.reason for told in commit.regions}


def test_a_region_that_is_killed_stops_nobody_and_comes_back(six: Federation, run: str):
    home = six.machine.home
    assert load_toml(RegionInvitation, home / "hills.toml").credential != load_toml(
        RegionInvitation, home / "plains.toml").credential
    for name in REGIONS:
        six.spawn("region", "start", str(six.machine.site(name)))
    assert committed(six, run, six.start("federated-round", run=run), 1) == {"hills": "", "plains": ""}
    assert set(six.record(run, 1)["outcomes"].values()) == {"updated"}

    os.kill(six.pid("hills"), signal.SIGKILL)
    assert committed(six, run, six.start("federated-round", run=run, deadline_s=20), 2) == {"hills": None, "plains": ""}
    assert six.record(run, 2)["outcomes"] == {
        name: "updated" if name in REGIONS["plains"] else "rejected" for name in SITES}

    six.spawn("region", "start", str(six.machine.site("hills")))
    assert committed(six, run, six.start("federated-round", run=run), 3) == {"hills": "", "plains": ""}
    proven = json.loads(typed(six, "verify", run, "--as", six.machine.coordinator, "--recompute", "--json"))["rounds"]
    assert [one["recomputed"] for one in proven] == [False, True, True, True]
    assert proven[2]["regions"] == {"hills": "its coordinator gave no partial sum in time", "plains": ""}
