"""A federation whose second round is answered and not yet committed, made once; every test gets copies of its store."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

import tasks.collect
from fedround.aggregation.spec import default_aggregation
from infra.history import Committed
from infra.settings import load_toml, save_toml
from infra.stores import MemoryStore, ObjectStore
from site_workers.policy import SitePolicy
from tasks.coordinator import Coordinator
from tasks.plan import Planned
from tests import small_federation
from tests.small_federation import SmallFederation


@dataclass(frozen=True)
class Answered:
    """Round 1 is committed with three updates; round 2 has two updates and one refusal, and no commit."""

    federation: SmallFederation
    planned: Planned

    def store(self, without: str = "no key") -> MemoryStore:
        """A copy of everything in the store but the keys that start with `without`."""
        real, copy = self.federation.coordinator.store, MemoryStore()
        for key in real.list(""):
            if not key.startswith(without):
                copy.put_once(key, real.get(key))
        return copy

    def coordinator(self, store: ObjectStore, folder: Path | None = None) -> Coordinator:
        """A coordinator that has just started on this store."""
        fresh = self.federation.coordinator
        return dataclasses.replace(fresh, store=store, folder=folder or fresh.folder)

    def commit(self, store: ObjectStore, order: tuple[str, ...] | None = None) -> Committed:
        """Commit round 2."""
        return self.federation.commit(self.planned, self.coordinator(store), order)


@pytest.fixture(scope="session")
def answered(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> Answered:
    federation = small_federation.make(tmp_path_factory.mktemp("answered"))
    federation.round()
    policy = federation.root / "south" / "policy.toml"
    save_toml(load_toml(SitePolicy, policy).model_copy(update={"min_rows": 10_000}), policy, "asks for more than it has")
    planned = federation.plan()
    assert [federation.answer(name, planned) for name in small_federation.NAMES] == ["update", "update", "refusal"]
    return Answered(federation, planned)


WIDTH = 24_001
"""Coordinates of the crowd's model: enough for its noise to be heard beside its signal."""

CROWD = ("ash", "birch", "cedar", "elm", "fir", "oak", "pine")
"""The members of `crowd`; in its tests, fir lies."""


class Crowd(SmallFederation):
    """A federation of many tests: a run that two of them name would make the verdict hang on their order."""

    runs: ClassVar[dict[str, str]] = {}

    def plan(self, run: str = "spring", **changes: object) -> Planned:
        """As a `SmallFederation`, for the test that named the run first."""
        test = os.environ["PYTEST_CURRENT_TEST"].partition("[")[0].partition(" ")[0]
        assert self.runs.setdefault(run, test) == test, f"{self.runs[run]} has a run '{run}': choose another name"
        return super().plan(run, **changes)


@pytest.fixture(scope="session")
def crowd(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    """Seven sites with audible noise and the default aggregation, against one liar. Every test takes a run of its own.

    The gate asks for six sigmas instead of four. With four, chance leaves an honest site out of one round in some hundred.
    """
    default = default_aggregation(5, noise_is_declared=True, rounds=6)
    assert default.gate is not None
    how = default.model_copy(update={"gate": default.gate.model_copy(update={"sigmas": 6.0})})
    made = small_federation.make(
        tmp_path_factory.mktemp("crowd"), names=CROWD, recipe=small_federation.WIDE, max_epsilon=900.0,
        aggregation=how.model_dump(mode="json", exclude_none=True),
        quorum=5, evaluation={"bins": 10, "noise_std": 40.0},
        privacy={"unit": "record", "epsilon": 1.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 6})
    return Crowd(made.root, made.names)


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.collect, "POLL_S", 0.0)


def objects(store: ObjectStore) -> dict[str, bytes]:
    """Everything that lies in a store."""
    return {key: store.get(key) for key in store.list("")}
