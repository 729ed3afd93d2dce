"""Who has heard of a plan, who gets a flow run all the same, and how a round is closed: against a server of one page.

The real server is in `tests/e2e`.
"""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Completed, Failed, Running, Scheduled, State

from infra.asking import CLOSED, ROUND_RUN, Asked, task_run
from tasks import invite
from tasks.invite import InvitedRuns

SITES = ("north", "east")


class Server:
    """Flow runs by idempotency key, task runs by id, and the events that were sent."""

    def __init__(self) -> None:
        self.runs: dict[str, FlowRun] = {}
        self.task_runs: list[TaskRun] = []
        self.told: list[str] = []
        self.deployment = uuid.uuid4()

    def put(self, key: str, state: State) -> None:
        """A site begins, or ends, its flow run."""
        old = self.runs.get(key)
        self.runs[key] = FlowRun(id=old.id if old else uuid.uuid4(), flow_id=uuid.uuid4(), idempotency_key=key, state=state)

    async def read_flow_runs(self, flow_run_filter: FlowRunFilter, *, offset: int, limit: int, sort: FlowRunSort,
                             **of_all: None) -> list[FlowRun]:
        assert not any(of_all.values()), "runs of other flows and pools are asked for by their keys, too"
        assert len(self.runs) < limit
        states = None if flow_run_filter.state is None else flow_run_filter.state.type.any_
        ids, keys = flow_run_filter.id, flow_run_filter.idempotency_key
        return [run for run in self.runs.values() if (states is None or run.state.type in states)
                and (run.id in ids.any_ if keys is None else run.idempotency_key in keys.any_)]

    async def read_task_runs(self, task_run_filter: TaskRunFilter) -> list[TaskRun]:
        return [run for run in self.task_runs if run.id in task_run_filter.id.any_]

    async def read_deployment_by_name(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(id=self.deployment)

    async def create_flow_run_from_deployment(self, deployment: uuid.UUID, *, idempotency_key: str, **_: Any) -> FlowRun:
        assert deployment == self.deployment
        if idempotency_key not in self.runs:
            self.put(idempotency_key, Scheduled())
        return self.runs[idempotency_key]

    async def set_flow_run_state(self, run_id: uuid.UUID, state: State, force: bool = False) -> None:
        if (key := next((key for key, run in self.runs.items() if run.id == run_id), None)) is None:
            raise ObjectNotFound(RuntimeError("404"))
        self.put(key, state)

    async def request(self, method: str, path: str, json: Any) -> SimpleNamespace:
        if path == "/events":
            self.told += [event["event"] for event in json]
            return SimpleNamespace()
        assert path == "/flow_runs/count"
        wanted = FlowRunFilter.model_validate(json["flow_runs"])
        count = sum(run.id in wanted.id.any_ and run.state.type in wanted.state.type.any_ for run in self.runs.values())
        return SimpleNamespace(json=lambda: count)

    def states(self) -> dict[str, str]:
        """The state of every flow run, by site."""
        return {key.split("/")[1]: run.state.name for key, run in self.runs.items()}


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invite, "GRACE_S", 0.0)


def invitation(standing: dict[str, uuid.UUID] | None = None, plan: str = "p1", gone: tuple[str, ...] = ()) -> InvitedRuns:
    asked = Asked(tag="spring/train-00001", by=str(uuid.uuid4()), plan=plan, parameters={"run": "spring"}, tries={},
                  standing={site: str(run) for site, run in (standing or {}).items()})
    return InvitedRuns(asked, {site: asked.key(site) for site in SITES}, gone)


async def test_whoever_has_ended_is_done_however_it_ended():
    server, asked = Server(), invitation()
    assert await asked.ended(server, set(SITES)) == set()
    server.put("p1/north/0", Running())
    assert await asked.ended(server, set(SITES)) == set()
    server.put("p1/north/0", Completed())
    assert await asked.ended(server, set(SITES)) == {"north"}
    assert asked.runs == {"north": server.runs["p1/north/0"].id}


async def test_a_site_that_has_not_heard_finds_a_scheduled_run_under_the_key_that_it_would_have_used(
        monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(invite, "TAKEN_S", -1.0)
    server, asked = Server(), invitation()
    server.put(asked.asked.key("north"), Running())
    assert await asked.ended(server, set(SITES)) == set()
    assert server.states() == {"north": "Running", "east": "Scheduled"}
    assert asked.asked.key("east") in server.runs


async def test_a_deployment_that_was_deleted_and_made_again_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(invite, "TAKEN_S", -1.0)
    server = Server()
    for plan in ("p1", "p2"):
        asked = invitation(plan=plan)
        await asked.ended(server, set(SITES))
        assert server.runs.keys() >= {asked.asked.key(site) for site in SITES}
        server.deployment = uuid.uuid4()


async def test_a_round_that_closes_leaves_nothing_that_could_begin_afterwards():
    """Not even at a site that has not heard of the plan yet: it finds the run under its key, and that is over."""
    server, asked = Server(), invitation()
    server.put("p1/north/0", Running())
    await asked.close(server, set(SITES))
    assert server.states() == {"north": "Cancelled", "east": "Cancelled"}


async def test_who_answers_in_the_last_moment_is_not_cancelled():
    server, asked = Server(), invitation()
    server.put("p1/north/0", Completed())
    await asked.close(server, {"north"})
    assert server.states() == {"north": "Completed"}


async def test_in_a_campaign_a_task_run_says_who_is_done_and_late_sites_are_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(invite, "TAKEN_S", -1.0)
    standing = {site: uuid.uuid4() for site in SITES}
    server, asked = Server(), invitation(standing)
    assert await asked.ended(server, set(SITES)) == set()
    server.task_runs.append(TaskRun(
        id=task_run(standing["east"], "p1"), task_key="answer", dynamic_key="p1", state=Completed()))
    assert await asked.ended(server, set(SITES)) == {"east"}
    await asked.close(server, {"north"})
    assert (server.told, server.runs) == ([CLOSED], {})


@pytest.mark.parametrize("state", [Cancelled(), Failed()], ids=lambda state: state.name)
async def test_a_site_whose_flow_run_for_the_campaign_has_ended_is_not_waited_for(
        state: State, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(invite, "LOOK_S", -1.0)
    server = Server()
    for site in SITES:
        server.put(site, Running())
    asked = invitation({site: server.runs[site].id for site in SITES})
    assert await asked.ended(server, set(SITES)) == set()
    server.put("east", state)
    assert await asked.ended(server, set(SITES)) == {"east"}
    assert await asked.ended(server, {"north"}) == set()


@pytest.mark.parametrize("in_campaign", [False, True])
async def test_a_site_whose_flow_run_somebody_deletes_is_not_waited_for(in_campaign: bool, monkeypatch: pytest.MonkeyPatch):
    """Whoever has the key of the API can: nobody waits until the deadline for a run that no site serves any more."""
    monkeypatch.setattr(invite, "LOOK_S", -1.0)
    monkeypatch.setattr(invite, "TAKEN_S", -1.0)
    server = Server()
    for site in SITES:
        server.put(f"p1/{site}/0", Running())
    asked = invitation({site: server.runs[f"p1/{site}/0"].id for site in SITES} if in_campaign else None)
    assert await asked.ended(server, set(SITES)) == set()
    del server.runs["p1/east/0"]
    assert await asked.ended(server, set(SITES)) == {"east"}
    assert await asked.ended(server, {"north"}) == set()


async def test_a_run_that_is_deleted_while_a_round_closes_does_not_fail_the_round():
    server, asked = Server(), invitation()
    server.put("p1/north/0", Running())
    read = server.read_flow_runs

    async def read_then_deleted(*arguments: Any, **of_all: Any) -> list[FlowRun]:
        found = await read(*arguments, **of_all)
        server.runs.pop("p1/north/0", None)
        return found

    server.read_flow_runs = read_then_deleted
    await asked.close(server, set(SITES))


async def test_a_site_that_has_left_the_campaign_is_not_waited_for_at_all():
    server = Server()
    server.put("east", Cancelled())
    left = invitation({"east": server.runs["east"].id}, gone=("east",))
    assert await left.ended(server, {"east"}) == {"east"}
    assert server.told == []


def served(site: str, state: State, campaign: str, minute: int) -> FlowRun:
    return FlowRun(flow_id=uuid.uuid4(), name=f"spring/campaign/{site}", tags=["spring/campaign"], state=state,
                   labels={ROUND_RUN: campaign}, created=f"2026-11-30T12:{minute:02d}:00Z")


@pytest.mark.parametrize("is_own", [True, False])
def test_only_who_was_cancelled_last_and_in_this_campaign_has_left_it(is_own: bool, monkeypatch: pytest.MonkeyPatch):
    """Whether the round has a flow run of its own, within the campaign's, or is a part of the campaign's."""
    ids = {"parent_flow_run_id": "this", "id": "a round"} if is_own else {"parent_flow_run_id": None, "id": "this"}
    monkeypatch.setattr(invite, "runtime", SimpleNamespace(flow_run=SimpleNamespace(**ids)))
    runs = [served("north", Cancelled(), "this", 1), served("north", Running(), "this", 2),      # suspended, and resumed
            served("east", Running(), "this", 1), served("east", Cancelled(), "this", 2),
            served("south", Cancelled(), "another", 1), served("west", Failed(), "this", 1)]
    assert invite._given_up(runs, "spring", is_own=is_own).keys() == {"east"}


def test_a_round_of_its_own_asks_a_site_that_left_a_campaign(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(invite, "runtime", SimpleNamespace(flow_run=SimpleNamespace(parent_flow_run_id=None, id="a round")))
    assert invite._given_up([served("east", Cancelled(), "this", 1)], "spring", is_own=True) == {}
