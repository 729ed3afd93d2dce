"""Three coordinators live: each has a process, a pool and a key of its own. The founder is killed in the middle of a
campaign, and the others go on.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedround.signing import Identity
from flows.forms import grouped
from flows.one_machine import Founding, Member, OneMachine
from infra.history import last_round
from infra.settings import load_federation
from infra.stack import LocalStack
from infra.stack.processes import recorded
from tests.e2e.conftest import Federation, on_servers, own_settings, wait
from tests.small_federation import CONTRACT, NAMES, RECIPE, rows, settings

pytestmark = pytest.mark.stack

OTHERS = ("two", "three")


@pytest.fixture(scope="module")
def three(short_folder: Path, rows_are_judged_here: None) -> Iterator[Federation]:
    """Three sites, and three coordinators of which the founder is the first."""
    stack = LocalStack(short_folder / "turns")
    info = stack.start(lambda _: None)
    machine, agreed = OneMachine(stack.home), stack.home / "agreed"
    agreed.mkdir()
    (agreed / "recipe.py").write_text(RECIPE)
    (agreed / "contract.json").write_text(json.dumps(CONTRACT))
    rows(400, 99).to_parquet(agreed / "test.parquet")
    members = []
    for seed, name in enumerate(NAMES):
        data = stack.home / "data" / name
        data.mkdir(parents=True)
        rows(200, seed).to_parquet(data / "train.parquet")
        rows(100, 50 + seed).to_parquet(data / "validation.parquet")
        members.append(Member(name, data / "train.parquet", data / "validation.parquet", 200.0))
    said = settings(quorum=2, deadline_s=120, privacy={"unit": "record", "epsilon": 20.0, "delta_dp": 1e-5, "clip_norm": 1.0,
                                                       "rounds": 12})
    try:
        with on_servers(machine, info.api_url) as federation:
            with own_settings(federation.api_url):
                machine.set_up(Founding(said, agreed / "recipe.py", agreed / "contract.json", agreed / "test.parquet"),
                               members, max_epsilon=900.0, delta_dp=1e-5, min_rows=50)
            file = machine.coordinator / "federation.toml"
            keys = {"one": load_federation(file).coordinator}
            for name in OTHERS:
                shutil.copytree(machine.coordinator, stack.home / name)
                (stack.home / name / "keys" / "identity.pem").unlink()
                identity = Identity.generate()
                identity.save(stack.home / name / "keys" / "identity.pem")
                keys[name] = identity.key
            named = "silence_s = 30\n" + file.read_text() + "".join(
                f'\n[[coordinators]]\nname = "{name}"\nkey = "{key}"\n' for name, key in keys.items())
            for folder in (machine.coordinator, *(stack.home / name for name in OTHERS)):
                (folder / "federation.toml").write_text(named)
            done = federation.here("deploy", "--coordinator", machine.coordinator)
            assert done.exit_code == 0, done.output
            federation.start_processes()
            yield federation
    finally:
        stack.stop()


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
