"""Flow runs that somebody deletes, as the UI's button does, while they run: no process ends, and nobody waits for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.types._datetime import now

from infra.asking import Ended, answered
from infra.stack.processes import recorded
from tests.e2e.conftest import Federation, wait
from tests.e2e.test_attacks import still_serves
from tests.e2e.test_faults import completed
from tests.small_federation import NAMES

pytestmark = pytest.mark.stack


@contextmanager
def the_same_processes(real: Federation) -> Iterator[None]:
    """No process has ended meanwhile."""
    def all_of_them() -> tuple[dict[str, int], list[int]]:
        return recorded(real.machine.home), [real.pid(name) for name in NAMES]

    before = all_of_them()
    yield
    assert all_of_them() == before


def test_a_site_whose_run_is_deleted_is_not_waited_for_or_asked_again_and_serves_on(real: Federation, run: str):
    """The deadline is fifteen minutes: a round that waited for it would not end here. Of a run that is deleted in its first
    seconds the coordinator has not known, and schedules one.
    """
    with the_same_processes(real):
        with real.held(real.machine.site("east")):
            started = real.start("federated-round", run=run, quorum=2)
            mine = wait(lambda: real.site_run(run, "east"), "the run of work that takes longer than a moment")
            real.ask(lambda client: client.delete_flow_run(mine.id))
        completed(real, started)
        told = real.record(run)["outcomes"]
        assert told.pop("east") in ("updated", "missing")
        assert set(told.values()) == {"updated"}
        assert len(real.charges("east", run)) == 1
        still_serves(real, f"{run}-next")


def test_a_site_whose_run_for_a_campaign_is_deleted_answers_the_next_round_in_one_of_its_own(real: Federation, run: str):
    def of_campaign() -> list[FlowRun]:
        async def every(client: PrefectClient) -> list[FlowRun]:
            return await client.read_flow_runs()

        return [found for found in real.ask(every)
                if found.name == f"{run}/campaign/east" and found.state.is_running()]

    with the_same_processes(real):
        with real.held(real.machine.site("east")):
            started = real.start("federated-training", run=run, rounds=2, one_run_per_site=True, quorum=2)
            wait(lambda: real.charges("east", run), "the charge, which comes before the work")
            mine = wait(of_campaign, "the run that serves the campaign")[0]
            real.ask(lambda client: client.delete_flow_run(mine.id))
            wait((real.machine.coordinator / "reports" / run / "00001.json").exists, "round 1 without east")
        completed(real, started)
        assert real.record(run)["outcomes"] == {"north": "updated", "east": "missing", "south": "updated"}
        assert set(real.record(run, 2)["outcomes"].values()) == {"updated"}


def test_attack_reports_that_the_server_cannot_keep_hold_no_round_up(real: Federation, run: str):
    """Prefect keeps reports of task runs in batches: one of a flow run that is not there keeps it from all others beside it.
    Whoever holds the key of the API can send many; then nobody hears that a site has answered, and the store is asked.
    """
    over = threading.Event()
    ended = Ended(type="COMPLETED", message="poison", began=now("UTC"), at=now("UTC"))

    def poison() -> None:
        with httpx.Client(base_url=real.api_url) as client:
            while not over.wait(0.2):
                client.post("/events", json=[answered(uuid4(), "0" * 64, "poison", ended)]).raise_for_status()

    attacker = threading.Thread(target=poison)
    attacker.start()
    try:
        completed(real, real.start("federated-training", run=run, rounds=2, one_run_per_site=True))
    finally:
        over.set()
        attacker.join()
    assert set(real.record(run, 2)["outcomes"].values()) == {"updated"}


@pytest.mark.parametrize("name", ["site-round", "federated-round"])
def test_after_a_flow_is_deleted_with_all_its_runs_a_deploy_makes_it_again_and_nothing_restarts(
        real: Federation, name: str):
    """As the UI's page of flows does it: deployments and runs go with it, and what is made again has other ids."""
    async def delete(client: PrefectClient) -> None:
        flow = await client.read_flow_by_name(name)
        await client.request("DELETE", f"/flows/{flow.id}")

    with the_same_processes(real):
        still_serves(real, f"before-{name}")
        real.ask(delete)
        done = real.here("deploy", "-c", real.machine.coordinator)
        assert done.exit_code == 0, done.output
        still_serves(real, f"after-{name}")


def test_a_campaign_whose_rounds_run_is_deleted_ends_with_a_sentence_and_can_be_asked_for_again(real: Federation, run: str):
    def of_round(started: UUID) -> list[FlowRun]:
        """Its run is the child of a task run of the campaign's."""
        async def every(client: PrefectClient) -> list[FlowRun]:
            return await client.read_flow_runs(flow_run_filter=FlowRunFilter(
                parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[started])))

        return [found for found in real.ask(every) if found.state.is_running()]

    with the_same_processes(real):
        with real.held(real.machine.site("north")):
            started = real.start("federated-training", run=run, rounds=2)
            wait(lambda: real.charges("north", run), "the charge, which comes before the work")
            mine = wait(lambda: of_round(started), "the run of the round")[0]
            real.ask(lambda client: client.delete_flow_run(mine.id))
        ended = real.ended(started)
        assert ended.state.is_failed()
        assert "somebody has deleted the flow run of round 1" in ended.state.message
        completed(real, real.start("federated-training", run=run, rounds=2))
        assert set(real.record(run, 2)["outcomes"].values()) == {"updated"}


def test_a_coordinator_whose_run_is_deleted_serves_on_and_the_campaign_can_be_asked_for_again(real: Federation, run: str):
    with the_same_processes(real):
        with real.held(real.machine.site("north")):
            started = real.start("federated-training", run=run, rounds=1)
            wait(lambda: real.charges("north", run), "the charge, which comes before the work")
            real.ask(lambda client: client.delete_flow_run(started))
        completed(real, real.start("federated-training", run=run, rounds=1))
        assert set(real.record(run)["outcomes"].values()) == {"updated"}
        assert len(real.charges("north", run)) == 2, "a round and its evaluation"
