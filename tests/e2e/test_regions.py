"""Regions live: real servers, six sites, and two regional coordinators that are processes with pools and credentials of their
own. One of them is killed, and comes back.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.invitations import RegionInvitation
from infra.settings import load_toml
from tests.e2e.conftest import Federation
from tests.e2e.founding import with_members
from tests.e2e.regional import committed, start, with_regions

pytestmark = pytest.mark.stack

REGIONS = {"hills": ("ash", "cedar", "yew"), "plains": ("birch", "elm", "fir")}
SITES = tuple(sorted(name for members in REGIONS.values() for name in members))


@pytest.fixture(scope="module")
def six(short_folder: Path, rows_are_judged_here: None) -> Iterator[Federation]:
    """Six sites in two regions, a quorum of three."""
    with with_members(short_folder / "regions", SITES, quorum=3) as federation:
        with_regions(federation, REGIONS)
        federation.start_processes()
        yield federation


def test_a_region_that_is_killed_stops_nobody_and_comes_back(six: Federation, run: str):
    home = six.machine.home
    assert load_toml(RegionInvitation, home / "hills.toml").credential != load_toml(
        RegionInvitation, home / "plains.toml").credential
    for name in REGIONS:
        start(six, name)
    assert committed(six, run, six.start("federated-round", run=run), 1) == {"hills": "", "plains": ""}
    assert set(six.record(run, 1)["outcomes"].values()) == {"updated"}

    os.kill(six.pid("hills"), signal.SIGKILL)
    assert committed(six, run, six.start("federated-round", run=run, deadline_s=20), 2) == {"hills": None, "plains": ""}
    assert six.record(run, 2)["outcomes"] == {
        name: "updated" if name in REGIONS["plains"] else "rejected" for name in SITES}

    start(six, "hills")
    assert committed(six, run, six.start("federated-round", run=run), 3) == {"hills": "", "plains": ""}
    proven = json.loads(six.works("verify", run, "--as", six.machine.coordinator, "--recompute", "--json"))["rounds"]
    assert [one["recomputed"] for one in proven] == [False, True, True, True]
    assert proven[2]["regions"] == {"hills": "its coordinator gave no partial sum in time", "plains": ""}
