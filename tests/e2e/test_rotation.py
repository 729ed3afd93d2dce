"""Three coordinators live: each has a process, a pool and a key of its own. The founder is killed in the middle of a
campaign, and the others go on.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedround.signing import Identity
from flows.forms import grouped
from infra.history import last_round
from infra.settings import load_federation
from infra.stack.processes import recorded
from tests.e2e.conftest import Federation, wait
from tests.e2e.founding import with_members
from tests.small_federation import NAMES

pytestmark = pytest.mark.stack

OTHERS = ("two", "three")


@pytest.fixture(scope="module")
def three(short_folder: Path, rows_are_judged_here: None) -> Iterator[Federation]:
    """Three sites, and three coordinators of which the founder is the first."""
    with with_members(short_folder / "turns", NAMES) as federation:
        machine, home = federation.machine, federation.machine.home
        founder, test_set = ("--coordinator", machine.coordinator), next(machine.coordinator.glob("test_set.*"))
        for name in OTHERS:
            federation.works("coordinator", "invite", name, *founder, "--home", home, "--output", home / f"{name}.toml")
            federation.works("coordinator", "init", home / name, "--invitation", home / f"{name}.toml", "--test-set",
                             test_set)
        named = [f"{name}={Identity.load(home / name / 'keys' / 'identity.pem').key}" for name in OTHERS]
        federation.works("coordinator", "add", *named, "--founder", "one", "--silence", 30, *founder)
        federation.works("deploy", *founder)
        for name in OTHERS:
            federation.works("coordinator", "update", "--coordinator", home / name)
        federation.start_processes()
        yield federation


def test_a_campaign_of_three_coordinators_goes_on_without_its_founder(three: Federation, run: str):
    key, home = load_federation(three.machine.coordinator / "federation.toml").coordinator, three.machine.home
    for name in OTHERS:
        three.spawn("coordinator", "start", "--coordinator", str(home / name))
    asked = {"request": grouped({"run": run, "rounds": 6})}
    started = {name: three.start_raw(f"federated-training/1-train-small{suffix}", asked)
               for name, suffix in (("one", ""), ("two", "-two"), ("three", "-three"))}
    wait(lambda: (last_round(three.store, run, key) or 0) >= 2, "two rounds")
    os.kill(recorded(home)["coordinator"], signal.SIGKILL)
    for name in OTHERS:
        ended = three.ended(started[name])
        assert ended.state.is_completed(), ended.state.message
        print(f"\n{name}: {ended.total_run_time.total_seconds():.1f} s")
    assert last_round(three.store, run, key) == 6
    done = three.here("verify", run, "--as", three.machine.coordinator, "--recompute", "--json")
    rounds = json.loads(done.stdout)["rounds"]
    assert [one["recomputed"] for one in rounds] == [False, *[True] * 6]
