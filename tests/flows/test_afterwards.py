"""Once a round is committed nothing stops the run: whichever step after it fails is told, and made by the next round."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

import flows.federated_round
import flows.steps
import flows.watch
import tasks.catch_up
import tasks.memory
import tasks.pages
import tasks.publish
import tasks.report
from fedround.errors import StoreUnavailableError
from flows.federated_round import federated_round
from infra.history import last_round
from infra.model_registry import ModelRegistry
from tasks.plan import Planned
from tasks.progress import read_progress
from tasks.report import is_reported, records
from tasks.requests import NextRoundRequest
from tests import small_federation
from tests.small_federation import SmallFederation

AFTER = {
    "spool": (tasks.publish.spool, "clear"), "memory": (tasks.publish.memory, "forget"),
    "evaluate": (flows.federated_round.steps, "evaluate"), "report": (flows.federated_round.steps, "report"),
    "record": (tasks.report, "_record"), "version": (tasks.report, "_register"), "page": (tasks.pages, "render_html"),
    "evaluations": (tasks.report, "_evaluated"), "artifact": (flows.federated_round, "show"),
    "exports": (flows.federated_round, "export_apart"), "progress": (flows.watch, "write_progress")}
ERRORS = (OverflowError("int too large"), StoreUnavailableError("the store is away"), OSError(28, "No space left on device"))


@contextmanager
def _untold(*_: object) -> Any:
    yield


def run_a_round(federation: SmallFederation, patch: pytest.MonkeyPatch) -> int:
    """The flow's own function: no Prefect server, and the sites answer at once."""
    async def asked(_: object, planned: Planned, watch: flows.watch.Watch) -> Any:
        watch.plan(planned.plan)
        for name in planned.plan.cohort:
            federation.answer(name, planned)
        collected = await asyncio.to_thread(federation.collect, planned)
        watch.answers(collected)
        return SimpleNamespace(runs={}), collected

    async def shown(*_: object) -> None:
        return

    patch.setattr(flows.federated_round, "asked", asked)
    patch.setattr(flows.steps, "_told", _untold)
    patch.setattr(flows.watch, "get_run_logger", lambda: logging.getLogger("tests.round"))
    patch.setattr(flows.federated_round, "current_coordinator", lambda: federation.coordinator)
    if flows.federated_round.show.__module__ == "flows.artifacts":
        patch.setattr(flows.federated_round, "show", shown)
    return asyncio.run(federated_round.fn(NextRoundRequest(run="spring")))


@pytest.fixture(scope="module")
def unnoised(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    """A run may be as long as there are steps."""
    return small_federation.make(tmp_path_factory.mktemp("unnoised") / "f", units=("none",), privacy={"unit": "none"})


def test_no_step_after_a_commit_stops_the_run(unnoised: SmallFederation, monkeypatch: pytest.MonkeyPatch,
                                              caplog: pytest.LogCaptureFixture):
    coordinator = unnoised.coordinator
    for number, (step, place) in enumerate(AFTER.items(), start=1):
        error = ERRORS[2] if step == "progress" else ERRORS[number % 3]

        def fails(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        caplog.clear()
        with monkeypatch.context() as patch, caplog.at_level("WARNING"):
            patch.setattr(*place, fails)
            assert run_a_round(unnoised, patch) == number, step
        assert "counts without it" in caplog.text or step == "progress", step
        assert last_round(coordinator.store, "spring", coordinator.identity.key) == number
    with monkeypatch.context() as patch:
        assert run_a_round(unnoised, patch) == len(AFTER) + 1
    assert all(is_reported(coordinator, "spring", number) for number in range(1, len(AFTER) + 2))
    assert {version.tag for version in ModelRegistry.open(coordinator.folder / "models").versions()} == {
        f"spring/round-{number:05d}" for number in range(1, len(AFTER) + 2)}
    last = records(coordinator, "spring")[-1]
    assert [step for step, _ in last.steps] == ["plan", "wait for the sites", "aggregate", "publish"]
    assert all(row.answered_s is not None and row.answered_s <= dict(last.steps)["wait for the sites"] for row in last.sites)
    assert all(row.fetched_s is not None and row.fetched_s <= row.answered_s and row.fetches >= 2 for row in last.sites)
    assert sum(seconds for _, seconds in last.steps) <= last.seconds
    told = read_progress(unnoised.root / "coordinator")
    assert told is not None
    assert told.problem is None


def test_a_report_that_fails_for_ever_keeps_no_later_round_from_its_own(federation: SmallFederation,
                                                                      monkeypatch: pytest.MonkeyPatch):
    honest = tasks.report._record

    def record(coordinator: Any, planned: Planned, *rest: Any) -> Any:
        if planned.plan.round == 1:
            raise OverflowError
        return honest(coordinator, planned, *rest)

    monkeypatch.setattr(tasks.report, "_record", record)
    for number in (1, 2):
        with monkeypatch.context() as patch:
            assert run_a_round(federation, patch) == number
    assert not is_reported(federation.coordinator, "spring", 1)
    assert is_reported(federation.coordinator, "spring", 2)


def test_a_damaged_record_is_written_again(federation: SmallFederation, monkeypatch: pytest.MonkeyPatch):
    """Not when its round ended: the store does not say."""
    begun = datetime.now(UTC)
    with monkeypatch.context() as patch:
        run_a_round(federation, patch)
    ended = records(federation.coordinator, "spring")[0].ended
    assert ended is not None
    assert begun <= ended <= datetime.now(UTC)
    path = federation.coordinator.reports / "spring" / "00001.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    tasks.catch_up.catch_up(federation.coordinator, "spring")
    assert is_reported(federation.coordinator, "spring", 1)
    assert records(federation.coordinator, "spring")[0].ended is None
