"""What people hold in the Prefect UI is held, and goes on when it is let go: pools, deployments, campaigns, a site's run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolUpdate
from prefect.states import Paused, State, Suspended

from infra.stack.processes import recorded
from tests.e2e.conftest import Federation, wait
from tests.small_federation import NAMES

pytestmark = pytest.mark.stack

Change = Callable[[PrefectClient], Awaitable[object]]


def pool(**change: object) -> Change:
    return lambda client: client.update_work_pool("south", WorkPoolUpdate(**change))


def queue(**change: object) -> Change:
    async def update(client: PrefectClient) -> None:
        [default] = await client.read_work_queues(work_pool_name="south")
        await client.update_work_queue(default.id, **change)

    return update


def deployment(flow: str, *, paused: bool) -> Change:
    async def update(client: PrefectClient) -> None:
        found = await client.read_deployment_by_name(f"{flow}/south")
        await client.update_deployment(found.id, DeploymentUpdate(paused=paused))

    return update


WAYS = (
    (pool(is_paused=True), pool(is_paused=False), "the work pool 'south' is paused"),
    (pool(concurrency_limit=0), pool(concurrency_limit=None), "the work pool 'south' has a concurrency limit of 0"),
    (queue(is_paused=True), queue(is_paused=False), "the queue 'default' of the work pool 'south' is paused"),
    (queue(concurrency_limit=0), queue(concurrency_limit=None),
     "the queue 'default' of the work pool 'south' has a concurrency limit of 0"),
    (deployment("site-round", paused=True), deployment("site-round", paused=False), "the deployment 'south' is paused"))
"""In the order in which a site looks at them."""


HELD = (Paused(timeout_seconds=3600), Suspended(timeout_seconds=3600))


def lines(real: Federation, member: str) -> str:
    return (real.machine.site(member) / "site.log").read_text()


def test_a_held_site_begins_nothing_says_why_and_begins_once_all_is_let_go(real: Federation, run: str):
    for hold, _, _ in WAYS:
        real.ask(hold)
    before = len(lines(real, "south"))
    try:
        started = real.start("federated-round", run=run, quorum=3)
        for _, let_go, says in WAYS:
            wait(lambda says=says: f"{says}: nothing is begun" in lines(real, "south")[before:], says)
            assert real.charges("south", run) == []
            real.ask(let_go)
    finally:
        for _, let_go, _ in WAYS:
            real.ask(let_go)
    ended = real.ended(started)
    assert ended.state.is_completed(), ended.state.message
    assert real.record(run)["outcomes"] == dict.fromkeys(NAMES, "updated")


def test_a_held_site_takes_no_part_in_a_campaign_that_it_serves_by_one_run_either(real: Federation, run: str):
    with real.held(real.machine.site("north")):
        started = real.start("federated-training", run=run, rounds=2, quorum=3, one_run_per_site=True)
        wait(lambda: real.charges("south", run), "the first round")
        real.ask(pool(is_paused=True))
        before = len(lines(real, "south"))
    try:
        wait(lambda: "'south' is paused: nothing is begun" in lines(real, "south")[before:], "the second round")
        assert len(real.charges("south", run)) == 1
    finally:
        real.ask(pool(is_paused=False))
    ended = real.ended(started)
    assert ended.state.is_completed(), ended.state.message


def test_a_paused_pool_of_the_coordinator_holds_what_is_asked_for(real: Federation, run: str):
    name = "small-coordinator"
    log = real.machine.home / "logs" / "coordinator.log"
    before = len(log.read_text())
    real.ask(lambda client: client.update_work_pool(name, WorkPoolUpdate(is_paused=True)))
    try:
        started = real.start("federated-round", run=run)
        wait(lambda: f"'{name}' is paused: nothing is begun" in log.read_text()[before:], "the coordinator's word")
        assert real.flow_run(started).state.is_scheduled()
    finally:
        real.ask(lambda client: client.update_work_pool(name, WorkPoolUpdate(is_paused=False)))
    assert real.ended(started).state.is_completed()


@pytest.mark.parametrize("state", HELD, ids=lambda state: state.name)
def test_a_campaign_stops_after_the_round_in_progress_and_does_what_is_left_when_it_is_resumed(
        real: Federation, run: str, state: State):
    run = f"{run[:25]}-{state.name.lower()}"
    before = recorded(real.machine.home)
    with real.held(real.machine.site("north")):
        started = real.start("federated-training", run=run, rounds=2)
        wait(lambda: real.charges("south", run), "the first round")
        real.ask(lambda client: client.set_flow_run_state(started, state))
    wait((real.machine.coordinator / "reports" / run / "00001.json").exists, "the end of the round in progress")
    # Whoever waits for nothing else is asked next, and the campaign has not gone on by then.
    assert real.ended(real.start("federated-round", run=f"{run[:30]}-other")).state.is_completed()
    assert not (real.machine.coordinator / "reports" / run / "00002.json").exists()
    assert real.flow_run(started).state.name == "Suspended"
    real.ask(lambda client: client.resume_flow_run(started))
    ended = real.ended(started)
    assert ended.state.is_completed(), ended.state.message
    assert len(real.charges("south", run)) == 3, "two rounds and the evaluation: nothing twice"
    assert recorded(real.machine.home) == before, "no state change ends a process"


def test_a_sites_run_that_is_paused_stops_and_answers_when_it_is_resumed(real: Federation, run: str):
    with real.held(real.machine.site("east")):
        started = real.start("federated-round", run=run, quorum=3)
        mine = wait(lambda: found if (found := real.site_run(run, "east")) is not None and found.state.is_running() else None,
                    "east's run")
        real.ask(lambda client: client.set_flow_run_state(mine.id, Paused(timeout_seconds=3600)))
        assert real.flow_run(mine.id).state.is_paused()
    wait(lambda: (found := real.site_run(run, "south")) is not None and found.state.is_completed(), "south's answer")
    assert real.flow_run(mine.id).state.is_paused()
    real.ask(lambda client: client.resume_flow_run(mine.id))
    ended = real.ended(started)
    assert ended.state.is_completed(), ended.state.message
    assert real.record(run)["outcomes"] == dict.fromkeys(NAMES, "updated")
    assert len(real.charges("east", run)) == 1
