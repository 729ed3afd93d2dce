"""Regions under masks live: six sites, and three regional coordinators that add up what they cannot read; one is killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Federation
from tests.e2e.founding import adding
from tests.e2e.regional import committed, start, with_regions

pytestmark = pytest.mark.stack

REGIONS = {"coast": ("ash", "cedar"), "hills": ("birch", "elm"), "plains": ("fir", "yew")}
SITES = tuple(sorted(name for members in REGIONS.values() for name in members))


@pytest.fixture(scope="module")
def six(short_folder: Path, rows_are_judged_here: None) -> Iterator[Federation]:
    """Six sites in three regions, of which one may be away."""
    with adding(short_folder / "masked", SITES, {"threshold": 4, "dropouts": 2, "colluders": 0,
                                                 "consistency": "signed"}) as federation:
        with_regions(federation, REGIONS)
        for name in REGIONS:
            start(federation, name)
        yield federation


def test_a_region_that_is_killed_takes_its_members_with_it_and_no_others(six: Federation, run: str):
    assert committed(six, run, six.start("federated-round", run=run), 1) == dict.fromkeys(REGIONS, "")
    assert set(six.record(run, 1)["outcomes"].values()) == {"updated"}
    os.kill(six.pid("hills"), signal.SIGKILL)
    assert committed(six, run, six.start("federated-round", run=run, deadline_s=40), 2) == {
        "coast": "", "hills": None, "plains": ""}
    assert six.record(run, 2)["outcomes"] == {
        name: "rejected" if name in REGIONS["hills"] else "updated" for name in SITES}
    start(six, "hills")
    assert committed(six, run, six.start("federated-round", run=run), 3) == dict.fromkeys(REGIONS, "")
    proven = json.loads(six.works("verify", run, "--as", six.machine.coordinator, "--recompute", "--json"))["rounds"]
    assert [one["recomputed"] for one in proven] == [False, True, True, True]
