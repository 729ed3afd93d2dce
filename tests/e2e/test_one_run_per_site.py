"""A campaign in which every site has one flow run, with a task run for each round: the same laws as with a flow run each."""

from __future__ import annotations

from uuid import UUID

import pytest
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling, Paused

from tests.e2e.conftest import Federation, wait
from tests.e2e.test_faults import proven
from tests.small_federation import NAMES

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


LONG_S = 240      # no deadline is met or missed here by the speed of the machine, save where a test says so


def begun(real: Federation, run: str, deadline_s: int = LONG_S, **more: object) -> UUID:
    return real.start("federated-training", run=run, one_run_per_site=True, deadline_s=deadline_s, **more)


def completed(real: Federation, started: UUID) -> None:
    ended = real.ended(started, patience_s=LONG_S)
    assert ended.state.is_completed(), ended.state.message


def site_runs(real: Federation, run: str) -> dict[str, list[FlowRun]]:
    """The flow runs that serve the campaign, by site, in the order in which they were made."""
    found = real.ask(lambda client: client.read_flow_runs(flow_run_filter=FlowRunFilter(
        tags=FlowRunFilterTags(all_=[f"{run}/campaign"]))))
    found.sort(key=lambda flow_run: flow_run.created)
    return {site: [flow_run for flow_run in found if flow_run.name == f"{run}/campaign/{site}"] for site in NAMES}


def ended(real: Federation, run: str) -> list[list[str]]:
    """The states of every site's flow runs."""
    return [[mine.state.name for mine in runs] for runs in site_runs(real, run).values()]


def answers(real: Federation, flow_run: FlowRun) -> dict[str, str]:
    """The task runs of a site's flow run: name and state."""
    found = real.ask(lambda client: client.read_task_runs(flow_run_filter=FlowRunFilter(
        id=FlowRunFilterId(any_=[flow_run.id]))))
    return {task_run.name: task_run.state.name for task_run in found}


def test_every_site_has_one_flow_run_with_a_task_run_for_each_round(real: Federation, run: str):
    completed(real, begun(real, run, rounds=2))
    assert proven(real, run) == 2
    for site, runs in site_runs(real, run).items():
        assert [(mine.work_pool_name, mine.state.name) for mine in runs] == [(site, "Completed")]
        assert answers(real, runs[0]) == dict.fromkeys(
            (f"{run}/train-00001", f"{run}/train-00002", f"{run}/evaluate-00002"), "Completed")
        assert real.site_run(run, site) is None
        assert len(real.charges(site, run)) == 3
    assert set(real.record(run, 2)["outcomes"].values()) == {"updated"}


def test_a_cancelled_campaign_cancels_the_sites_runs_and_goes_on_when_it_is_asked_for_again(real: Federation, run: str):
    with real.held(real.machine.site("north")):
        started = begun(real, run, rounds=1)
        wait(lambda: real.charges("north", run), "north to begin", LONG_S)
        real.ask(lambda client: client.set_flow_run_state(started, Cancelling()))
        wait(lambda: real.flow_run(started).state.name == "Cancelled", "the campaign to be cancelled")
        wait(lambda: all(runs[-1].state.is_cancelled() for runs in site_runs(real, run).values()), "the sites' runs to end")
    completed(real, begun(real, run, rounds=1))
    assert proven(real, run) == 1
    assert [len(real.charges(site, run)) for site in NAMES] == [2, 2, 2]
    assert ended(real, run) == [["Cancelled", "Completed"]] * 3


def test_a_site_that_is_killed_in_a_campaign_takes_its_run_up_again_and_is_charged_once(real: Federation, run: str):
    with real.held(real.machine.site("east")):
        started = begun(real, run, rounds=2)
        wait(lambda: real.charges("east", run), "the charge, which comes before the work", LONG_S)
        real.restart_site("east")
    completed(real, started)
    assert [real.record(run, number)["outcomes"]["east"] for number in (1, 2)] == ["updated", "updated"]
    assert len(real.charges("east", run)) == 3
    assert [mine.state.name for mine in site_runs(real, run)["east"]] == ["Completed"]


def test_a_coordinator_that_is_killed_goes_on_with_the_sites_runs_that_are_there(real: Federation, run: str):
    with real.held(real.machine.site("north")):
        started = begun(real, run, rounds=2)
        wait(lambda: real.charges("north", run), "north to begin", LONG_S)
        real.restart_coordinator()
    completed(real, started)
    assert proven(real, run) == 2
    assert ended(real, run) == [["Completed"]] * 3


def test_a_site_that_works_too_long_is_stopped_at_the_deadline_of_the_round(real: Federation, run: str):
    completed(real, begun(real, run, rounds=1))          # a site's first round is slow: it judges its rows
    with real.held(real.machine.site("east")):
        completed(real, begun(real, run, rounds=2, quorum=2, deadline_s=15))
        assert real.record(run, 2)["outcomes"] == {"north": "updated", "south": "updated", "east": "missing"}
        assert [mine.state.name for mine in site_runs(real, run)["east"]] == ["Completed", "Completed"]
    completed(real, real.start("federated-round", run=run, quorum=3, deadline_s=LONG_S))


def test_a_site_whose_run_is_paused_does_not_answer(real: Federation, run: str):
    with real.held(real.machine.site("north")):
        started = begun(real, run, rounds=2, quorum=2, deadline_s=30)
        wait(lambda: [done for mine in site_runs(real, run)["east"] for done in answers(real, mine)], "east's answer", LONG_S)
        paused = site_runs(real, run)["east"][-1].id
        real.ask(lambda client: client.set_flow_run_state(paused, Paused(timeout_seconds=600), force=True))
    completed(real, started)
    assert [real.record(run, number)["outcomes"]["east"] for number in (1, 2)] == ["updated", "missing"]
    assert len(real.charges("east", run)) == 1


def test_a_site_whose_run_is_cancelled_leaves_the_campaign_and_nobody_waits_for_it(real: Federation, run: str):
    """The deadline is an hour: a campaign that waited for it would not end here."""
    with real.held(real.machine.site("north")):
        started = begun(real, run, rounds=2, quorum=2, deadline_s=3600)
        wait(lambda: [done for mine in site_runs(real, run)["east"] for done in answers(real, mine)], "east's answer", LONG_S)
        left = site_runs(real, run)["east"][-1].id
        real.ask(lambda client: client.set_flow_run_state(left, Cancelling()))
        wait(lambda: real.flow_run(left).state.name == "Cancelled", "east's run to end", LONG_S)
    completed(real, started)
    assert [real.record(run, number)["outcomes"]["east"] for number in (1, 2)] == ["updated", "missing"]
    assert len(real.charges("east", run)) == 1
    assert ended(real, run) == [["Completed"], ["Cancelled"], ["Completed"]]
    assert real.site_run(run, "east") is None
    completed(real, begun(real, run, rounds=3))         # asked for again, it takes part again
    assert real.record(run, 3)["outcomes"]["east"] == "updated"
