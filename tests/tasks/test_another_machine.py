"""The coordinator's machine is gone, in the middle of a round. What is left: the bucket, the agreed files and the key."""

from __future__ import annotations

import shutil
from pathlib import Path

from infra.history import read_commit
from infra.stores import MemoryStore
from tasks.plan import plan_round
from tasks.requests import NextRoundRequest
from tests.tasks.conftest import Answered, answered, objects

__all__ = ["answered"]

KEPT = ("coordinator.toml", "federation.toml", "approved", "keys", "test.parquet")


def another_machine(answered: Answered, folder: Path) -> Path:
    """A folder with what a backup holds, and nothing that rounds have left there."""
    old = answered.federation.coordinator.folder
    folder.mkdir()
    for name in KEPT:
        if (old / name).is_dir():
            shutil.copytree(old / name, folder / name)
        elif (old / name).exists():
            shutil.copyfile(old / name, folder / name)
    assert not (folder / "spool").exists()
    assert not (folder / "reports").exists()
    return folder


def test_a_round_in_progress_is_committed_on_another_machine_with_the_same_bytes(answered: Answered, tmp_path: Path):
    """Also with what the server's optimizer remembers (momentum 0.5): that lies in the bucket, by the commit's own digest."""
    here, there = answered.store(), answered.store()
    answered.commit(here)
    fresh = answered.coordinator(there, another_machine(answered, tmp_path / "new"))
    committed = answered.federation.commit(answered.planned, fresh)
    assert objects(there) == objects(here)
    assert committed.commit.blob("optimizer") is not None
    key = fresh.identity.key
    assert read_commit(here, "spring", 2, key).digest == committed.digest
    one, other = (plan_round(answered.coordinator(store, folder), NextRoundRequest(run="spring"))
                  for store, folder in ((here, None), (there, fresh.folder)))
    assert one.digest == other.digest


def test_two_machines_that_both_go_on_make_one_history(answered: Answered, tmp_path: Path):
    """The old one was only cut off: whoever is second reads what the first has committed, and nobody is asked twice."""
    store: MemoryStore = answered.store()
    answered.commit(store)
    before = objects(store)
    fresh = answered.coordinator(store, another_machine(answered, tmp_path / "new"))
    answered.federation.commit(answered.planned, fresh)
    assert objects(store) == before
    plans = [plan_round(answered.coordinator(store, folder), NextRoundRequest(run="spring")).digest
             for folder in (None, fresh.folder)]
    assert plans[0] == plans[1]
    assert len(objects(store)) == len(before) + 1, "one plan"
