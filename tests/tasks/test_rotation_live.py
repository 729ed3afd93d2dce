"""Three coordinators as processes: the founder is killed in the middle of a campaign, and the others go on."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from fedround import layout
from infra.history import cosigners, last_round, read_commit, read_plan_at
from tasks.plan import Planned
from tasks.recompute import Bench
from tasks.verify import verify_run
from tests import small_federation
from tests.small_federation import SmallFederation
from tests.tasks.test_rotation import THREE, folder_of, with_three

ROUNDS, PATIENCE_S = 6, 300.0


def answer_what_is_asked(federation: SmallFederation) -> None:
    """All sites answer the newest plan, unless they have."""
    coordinator = federation.coordinator
    number = (last_round(coordinator.store, "spring", coordinator.key) or 0) + 1
    if coordinator.store.head(layout.plan("spring", number, 1, "train")) is None:
        return
    plan, named = read_plan_at(coordinator.store, "spring", number, 1, "train", coordinator.key)
    planned = Planned(plan, named, read_commit(coordinator.store, "spring", number - 1, coordinator.key))
    for name in plan.cohort:
        if coordinator.store.head(layout.answer(name, "spring", number, 1, "train")) is None:
            federation.answer(name, planned)


def test_a_campaign_goes_on_without_its_founder(tmp_path: Path, rows_are_judged_here: None):
    federation = with_three(small_federation.make(tmp_path / "f", max_epsilon=200.0), silence_s=5)
    processes = {name: subprocess.Popen([sys.executable, "-m", "tests.turning", str(folder_of(federation, name)), "spring",
                                         str(ROUNDS)], stdout=(tmp_path / name).open("w")) for name in THREE}
    coordinator, end, killed_at = federation.coordinator, time.monotonic() + PATIENCE_S, 0
    try:
        while any(process.poll() is None for name, process in processes.items() if name != "one" or not killed_at):
            assert time.monotonic() < end, "the campaign stands still"
            answer_what_is_asked(federation)
            done = last_round(coordinator.store, "spring", coordinator.key) or 0
            if done >= 2 and not killed_at:
                killed_at = done
                processes["one"].kill()
            time.sleep(0.1)
    finally:
        for process in processes.values():
            process.kill()
            process.wait(30)
    assert [processes[name].returncode for name in ("two", "three")] == [0, 0]
    found = list(verify_run(coordinator.store, "spring", coordinator.key, None, Bench(tmp_path / "bench", coordinator.store)))
    assert [proof.recomputed for proof in found] == [False, *[True] * ROUNDS]
    signed = [cosigners(coordinator.store, read_commit(coordinator.store, "spring", number, coordinator.key),
                        coordinator.federation) for number in range(ROUNDS + 1)]
    assert all(len(names) >= 2 for names in signed)
    assert all(names == ("two", "three") for names in signed[killed_at + 2:])
