"""Processes and servers that are killed, stopped and started again: the campaign goes on, and the books are right."""

from __future__ import annotations

import json
from uuid import UUID

import psutil
import pytest
from prefect.states import Cancelling

from fedround import layout
from infra.stack.processes import recorded
from tests.e2e.conftest import Federation, wait

pytestmark = pytest.mark.stack


def is_running(real: Federation, run: str, site: str, number: int = 1) -> bool:
    """Whether the site has claimed its part of the round."""
    mine = real.site_run(run, site, number)
    return mine is not None and mine.state.is_running()


def completed(real: Federation, started) -> None:
    ended = real.ended(started)
    assert ended.state.is_completed(), ended.state.message


def proven(real: Federation, run: str) -> int:
    """How many rounds of the run hold, round 0 not counted."""
    done = real.here("verify", run, "--as", real.machine.coordinator, "--json")
    assert done.exit_code == 0, done.stderr
    return len(json.loads(done.stdout)["rounds"]) - 1


def test_a_site_that_is_killed_in_its_round_and_started_again_answers_and_is_charged_once(real: Federation, run: str):
    with real.held(real.machine.site("east")):
        started = real.start("federated-round", run=run)
        wait(lambda: real.charges("east", run), "the charge, which comes before the work")
        wait(lambda: is_running(real, run, "east"), "the run of work that takes longer than a moment")
        real.restart_site("east")
    completed(real, started)
    assert real.record(run)["outcomes"]["east"] == "updated"
    assert len(real.charges("east", run)) == 1


def test_a_coordinator_that_is_killed_in_its_campaign_goes_on_by_itself(real: Federation, run: str):
    """Killed while sites train; what they answered meanwhile counts, and every round has its report and its version."""
    with real.held(real.machine.site("north")):
        started = real.start("federated-training", run=run, rounds=2)
        wait(lambda: is_running(real, run, "north"), "north to take its part")
        real.restart_coordinator()
    completed(real, started)
    assert proven(real, run) == 2
    for number in (1, 2):
        assert set(real.record(run, number)["outcomes"].values()) == {"updated"}
        assert [len(real.charges(site, run)) for site in ("north", "east", "south")] == [3, 3, 3]


def test_a_coordinator_that_is_killed_after_its_commit_reports_the_round_when_it_is_back(real: Federation, run: str):
    """The round exists once its commit does. Its page and its version in the model store must come too."""
    completed(real, real.start("federated-round", run=run))
    with real.held(real.machine.coordinator):
        real.start("federated-round", run=run)
        wait(lambda: is_committed(real, run, 2), "the commit")
        real.restart_coordinator()
    completed(real, real.start("federated-round", run=run))
    assert set(real.record(run, 2)["outcomes"].values()) == {"updated"}
    listed = json.loads(real.here("models", "list", "-c", real.machine.coordinator, "--json").stdout)
    assert sorted(v["checkpoint"]["round"] for v in listed if v["checkpoint"]["run"] == run) == [1, 2, 3]


def is_committed(real: Federation, run: str, number: int) -> bool:
    """Whether the store has the round's commit."""
    return real.store.head(layout.commit(run, number)) is not None


def test_a_campaign_that_is_cancelled_ends_and_goes_on_when_it_is_asked_for_again(real: Federation, run: str):
    """As Ctrl-C does it. What the sites had begun is not begun twice."""
    with real.held(real.machine.site("north")):
        started = real.start("federated-training", run=run, rounds=1)
        wait(lambda: is_running(real, run, "north"), "north to take its part")
        real.ask(lambda client: client.set_flow_run_state(started, Cancelling()))
        # Prefect's engine says "crashed" for the blink until the worker, who knows why it ended, says "cancelled".
        wait(lambda: real.flow_run(started).state.name == "Cancelled", "the campaign to be cancelled")
        assert "in round 1, which is not committed" in real.flow_run(started).state.message
        assert "may have been charged" in real.flow_run(started).state.message, "north, and whoever had not answered yet"
        site = real.site_run(run, "north")
        assert real.flow_run(UUID(site.labels["fedround.round-run"])).state.name == "Cancelled"
        wait(lambda: real.site_run(run, "north").state.type in ("CANCELLING", "CANCELLED"), "north to be told")
    completed(real, real.start("federated-training", run=run, rounds=1))
    assert proven(real, run) == 1
    assert [len(real.charges(site, run)) for site in ("north", "east", "south")] == [2, 2, 2]


def test_nothing_is_left_running_in_the_records_after_all_this(real: Federation):
    """A killed coordinator's rounds are closed: the UI shows no run that nobody runs."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType

    left = real.ask(lambda client: client.read_flow_runs(flow_run_filter=FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING])))))
    assert [(flow_run.name, flow_run.state.name) for flow_run in left] == []


def test_a_site_that_does_not_wake_up_is_late_and_the_round_closes_without_it(real: Federation, run: str):
    deadline_s, asleep = real.short_deadline_s(), psutil.Process(real.pid("south"))
    asleep.suspend()
    try:
        completed(real, real.start("federated-round", run=run, deadline_s=deadline_s))
        assert real.record(run)["outcomes"] == {"north": "updated", "east": "updated", "south": "missing"}
        assert real.site_run(run, "south").state.is_cancelled()
    finally:
        asleep.resume()
    assert real.charges("south", run) == [], "it must not spend anything on a round that is over"
    completed(real, real.start("federated-round", run=run, quorum=3))


def test_a_site_that_works_too_long_is_stopped_and_below_the_quorum_the_next_try_counts_who_has_answered(
        real: Federation, run: str):
    deadline_s = real.short_deadline_s()
    with real.held(real.machine.site("east")):
        ended = real.ended(real.start("federated-round", run=run, quorum=3, deadline_s=deadline_s))
        assert ended.state.is_failed()
        assert "2 of 3 sites gave an update, the quorum is 3" in ended.state.message
        assert real.site_run(run, "east").state.is_cancelled()
    completed(real, real.start("federated-round", run=run, quorum=3, deadline_s=deadline_s))
    assert [len(real.charges(site, run)) for site in ("north", "east", "south")] == [1, 1, 1]


def test_a_store_that_dies_fails_the_round_with_one_sentence_and_when_it_is_back_all_go_on(real: Federation, run: str):
    """`fedround up` starts the servers again, and no process of the federation has to be started again."""
    before = recorded(real.machine.home)
    completed(real, real.start("federated-round", run=run))
    store = psutil.Process(real.machine.start_servers(lambda _: None).pids["s3"])
    store.kill()
    ended = real.ended(real.start("federated-round", run=run))
    assert ended.state.is_failed()
    assert "the object store at" in ended.state.message
    done = real.command("up", "--home", real.machine.home)
    assert done.returncode == 0, done.stderr
    completed(real, real.start("federated-round", run=run, quorum=3))
    assert recorded(real.machine.home) == before
    assert proven(real, run) == 2
