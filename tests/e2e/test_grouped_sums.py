"""Sums of groups live: real servers, nine site processes in three groups, of which one lies and one is away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fedround import codec, layout
from infra.history import read_commit, read_plan
from infra.settings import load_federation
from tests.e2e.conftest import Federation
from tests.e2e.founding import adding
from tests.e2e.test_secure_sums import completed, seconds_of

pytestmark = pytest.mark.stack

SITES = tuple(f"site-{number:02d}" for number in range(1, 10))
LIAR, AWAY = SITES[0], SITES[1]
LYING = """
import sys
import numpy as np
from site_workers import summing
from fedround_cli.main import main

honest = summing.summed.in_ring
summing.summed.in_ring = lambda parts, numbers_S: honest(parts, numbers_S) + np.uint32(1 << 29)
sys.argv[0] = "fedround"
main()
"""
"""The product's own process of a site, which adds to each of its numbers before it masks them."""


@pytest.fixture(scope="module")
def nine(short_folder: Path, rows_are_judged_here: None) -> Iterator[Federation]:
    """As few as three groups, one dropout and no colluder allow: two honest members are left in every group."""
    with adding(short_folder / "groups", SITES, {"threshold": 7, "dropouts": 1, "colluders": 0,
                                                 "groups": {"count": 3, "liars": 1}}) as federation:
        yield federation


def moved(nine: Federation, run: str, number: int) -> float:
    """By how much a round has changed the number that it changed most."""
    key = load_federation(nine.machine.coordinator / "federation.toml").coordinator
    commit = read_commit(nine.store, run, number, key).commit
    schema = read_plan(nine.store, commit, key).tensors
    before_D, after_D = (codec.flatten(codec.decode(nine.store.get(layout.model(named)), schema, "model"))
                         for named in (commit.base_model, commit.model))
    return float(np.abs(after_D - before_D).max())


def test_a_liar_and_one_who_is_away_move_the_model_no_further_than_honest_groups_do(nine: Federation, run: str):
    started = nine.start("federated-round", run=run)
    completed(nine, started)
    print("\nround 1, all honest:", moved(nine, run, 1), seconds_of(nine, started))
    for name in (LIAR, AWAY):
        os.kill(nine.pid(name), signal.SIGKILL)
    log = (nine.machine.home / "logs" / "spawned.log").open("ab")
    nine.started.append(subprocess.Popen(
        [sys.executable, "-c", LYING, "site", "start", str(nine.machine.site(LIAR))], stdout=log, stderr=log,
        cwd=nine.machine.home))
    started = nine.start("federated-round", run=run, deadline_s=90)
    completed(nine, started)
    print("round 2, a liar, and one away:", moved(nine, run, 2), seconds_of(nine, started))
    assert nine.record(run, 2)["outcomes"] == {name: "missing" if name == AWAY else "updated" for name in SITES}
    assert moved(nine, run, 2) < 4 * max(moved(nine, run, 1), 0.1), "alone the lie would be hundreds"
    nine.spawn("site", "start", str(nine.machine.site(AWAY)))
    done = nine.here("verify", run, "--as", nine.machine.coordinator, "--recompute", "--json")
    assert done.exit_code == 0, done.stderr
    assert [one["recomputed"] for one in json.loads(done.stdout)["rounds"]][1:] == [True] * 2
