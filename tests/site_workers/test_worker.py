"""What a site's worker does with an event that asks for an answer, against a client that answers as Prefect's server may.

The server itself is in `tests/e2e`.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from prefect.client.schemas.objects import FlowRun, WorkPool
from prefect.events import Event
from prefect.states import Cancelled, Completed, Running, Scheduled, State

from infra.asking import ASKED, AT_WORK, CLOSED, Asked, task_run
from site_workers import worker
from site_workers.campaign import CampaignRequest, Waiting
from site_workers.outcome import STOPPED, Ending, Outcome
from site_workers.round import SiteRequest
from site_workers.worker import SiteWorker

if TYPE_CHECKING:
    from prefect.server.schemas.core import TaskRun

DONE = Outcome(Ending.ANSWERED, "update")
CAMPAIGN = CampaignRequest(run="spring", rounds=3)
PARAMETERS: dict[str, str | int] = {"run": "spring", "round": 1, "attempt": 1, "purpose": "train"}


class Server:
    """Knows one flow run of the site, in `state`: None until somebody makes it."""

    def __init__(self, state: State | None = None):
        self.state = state
        self.id, self.keys, self.made, self.ended = uuid.uuid4(), list[str](), list[State](), list[State]()
        self.task_runs: list[TaskRun] = []
        self.counted, self.signs = 0, 0
        self.count: int | None = None       # what it says to every question how many there are, if it is behind

    async def create_flow_from_name(self, name: str) -> uuid.UUID:
        return uuid.uuid4()

    async def request(self, method: str, path: str, json: dict[str, Any], path_params: object = None) -> SimpleNamespace:
        if path == "/flow_runs/":
            self.keys.append(json["idempotency_key"])
            if self.state is None:
                self.state = State(type=json["state"]["type"], message=json["state"]["message"])
                self.made.append(self.state)
            made = FlowRun(id=self.id, flow_id=uuid.uuid4(), parameters=json["parameters"], state=self.state)
            return SimpleNamespace(json=lambda: made.model_dump(mode="json"))
        if path == "/flow_runs/count":
            asked, self.counted = json["flow_runs"], self.counted + 1
            there = self.state is not None and (
                "idempotency_key" in asked or self.state.type.value in asked["state"]["type"]["any_"])
            return SimpleNamespace(json=lambda: int(there) if self.count is None else self.count)
        if method == "PATCH":
            assert (path, path_params, json) == ("/flow_runs/{id}", {"id": self.id}, AT_WORK)
            self.signs += 1
            return SimpleNamespace()
        if path == "/events":
            from prefect.server.events.schemas.events import ReceivedEvent  # seconds of imports, for this alone
            from prefect.server.services.task_run_recorder import task_run_from_event

            self.task_runs += [task_run_from_event(ReceivedEvent.model_validate(event)) for event in json]
            return SimpleNamespace(json=dict)
        assert path == "/flow_runs/{id}/set_state"
        self.state = Running(message=json["state"]["message"])
        return SimpleNamespace(json=lambda: {"status": "ACCEPT"})

    async def set_flow_run_state(self, run_id: uuid.UUID, state: State, force: bool = False) -> None:
        assert run_id == self.id
        self.state = state
        self.ended.append(state)

    async def read_flow_run(self, run_id: uuid.UUID) -> FlowRun:
        return FlowRun(id=self.id, flow_id=uuid.uuid4(), state=self.state)


class Site:
    """North's worker, and what its job was called for."""

    def __init__(self, server: Server):
        self.jobs: list[dict[str, Any]] = []
        self.hold = threading.Event()
        self.hold.set()
        self.looks = True
        """Whether the job looks if it is cancelled."""
        self.worker = SiteWorker("north", self._job)
        self.worker._client = server
        self.worker._work_pool = WorkPool(name="north", type=SiteWorker.type, default_queue_id=uuid.uuid4())
        self.worker._limiter = anyio.CapacityLimiter(1)
        self.held: str | None = None
        self.worker.__dict__["_holding"] = SimpleNamespace(why=self._why)

    async def _why(self) -> str | None:
        return self.held

    def _job(self, parameters: dict[str, Any], cancelled) -> Outcome:
        self.jobs.append(parameters)
        while not self.hold.wait(0.001):
            if self.looks and cancelled():
                return STOPPED
        return DONE

    def serves(self, server: Server) -> None:
        """It has claimed the campaign's flow run."""
        self.worker._campaigns[server.id] = CAMPAIGN

    async def hear(self, *events: Event) -> None:
        """All events, one after the other, and what follows from them."""
        async with anyio.create_task_group() as group:
            self.worker._runs_task_group = group
            for event in events:
                await self.worker._hear(event)


def asked(kind: str = ASKED, plan: str = "p1", standing: uuid.UUID | None = None, **parameters: str | int) -> Event:
    payload = Asked(tag="spring/train-00001", by=str(uuid.uuid4()), plan=plan, parameters=PARAMETERS | parameters,
                    tries={"north": 2},
                    standing={} if standing is None else {"north": str(standing)}).model_dump()
    return Event(event=kind, resource={"prefect.resource.id": f"fedround.plan.{plan}"}, payload=payload)


async def test_a_site_that_is_asked_makes_a_run_of_its_own_that_says_how_it_ended():
    """Short work: the run is written once."""
    server = Server()
    site = Site(server)
    await site.hear(asked())
    assert (server.keys, site.jobs) == (["p1/north/2"], [PARAMETERS])
    assert [(state.type, state.message) for state in server.made] == [("COMPLETED", "update")]
    assert server.ended == []


async def test_a_flow_that_was_deleted_and_made_again_is_found_by_its_new_id():
    """Its id is asked for once in a process's life, unless the server takes it no more."""
    server = Server()
    site = Site(server)
    make, stale = server.request, uuid.uuid4()
    site.worker._flow_runs._flow = stale

    async def knows_another(method: str, path: str, json: dict[str, Any], path_params: object = None) -> SimpleNamespace:
        if path == "/flow_runs/" and json["flow_id"] == str(stale):
            request = httpx.Request(method, "http://127.0.0.1:9/api/flow_runs/")
            raise httpx.HTTPStatusError("404", request=request, response=httpx.Response(404, request=request))
        return await make(method, path, json, path_params)

    server.request = knows_another
    await site.hear(asked())
    assert [(state.type, state.message) for state in server.made] == [("COMPLETED", "update")]


async def begun(site: Site, server: Server, then: Callable[[], Awaitable[object]]) -> None:
    """Work that takes longer than a moment, and what happens once its run is shown; then the work is let go on."""
    site.hold.clear()
    async with anyio.create_task_group() as group:
        site.worker._runs_task_group = group
        await site.worker._hear(asked())
        while not server.keys:
            await anyio.sleep(0)
        await then()
        site.hold.set()


async def nothing() -> None:
    """Nothing happens."""


async def test_a_run_that_takes_a_while_is_running_meanwhile(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker, "SHOWN_AFTER_S", 0.0)
    server = Server()
    site = Site(server)
    await begun(site, server, nothing)
    assert [state.type for state in (*server.made, *server.ended)] == ["RUNNING", "COMPLETED"]
    assert len(site.jobs) == 1


async def test_while_work_moves_its_run_is_touched_and_while_it_does_not_it_is_not(monkeypatch: pytest.MonkeyPatch):
    """Whoever looks whether to stop has moved. That is all that is told, and the run's state stays as it is."""
    monkeypatch.setattr(worker, "SHOWN_AFTER_S", 0.0)
    monkeypatch.setattr(worker, "SIGN_S", 0.0)
    server = Server()
    site = Site(server)

    async def signs() -> None:
        while (work := site.worker._work).flow_run is None:
            await anyio.sleep(0)
        async with anyio.create_task_group() as group:
            group.start_soon(site.worker._every, lambda: worker.SIGN_S, site.worker._give_sign)
            for _ in range(3):
                before = server.signs
                assert not work.cancelled()
                while server.signs == before:
                    await anyio.sleep(0)
                assert server.signs == before + 1
                for _ in range(20):                         # nothing moves
                    await anyio.sleep(0)
                assert server.signs == before + 1
            group.cancel_scope.cancel()

    site.looks = False
    await begun(site, server, signs)
    assert [state.type for state in (*server.made, *server.ended)] == ["RUNNING", "COMPLETED"]


async def test_a_run_that_is_shown_can_be_cancelled(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker, "SHOWN_AFTER_S", 0.0)
    server = Server()
    site = Site(server)

    async def cancel() -> None:
        while site.worker._work.flow_run is None:
            await anyio.sleep(0)
        await site.worker._hear(Event(event="prefect.flow-run.Cancelling", resource={
            "prefect.resource.id": f"prefect.flow-run.{server.id}"}))
        while site.worker._work is not None:
            await anyio.sleep(0)

    await begun(site, server, cancel)
    assert [state.type for state in server.ended] == ["CANCELLED"]


async def test_work_whose_run_was_closed_before_it_was_shown_is_stopped(monkeypatch: pytest.MonkeyPatch):
    """The deadline passes between the question whether there is a run, and the run."""
    monkeypatch.setattr(worker, "SHOWN_AFTER_S", 0.0)
    server = Server()
    site = Site(server)
    server.count = 0
    server.state = Cancelled()

    async def stopped() -> None:
        while site.worker._work is not None:
            await anyio.sleep(0)

    await begun(site, server, stopped)
    assert (server.made, server.ended) == ([], [])


async def test_a_run_that_the_coordinator_schedules_while_we_work_is_ended_by_us():
    server = Server(Scheduled())
    server.count = 0
    site = Site(server)
    await site.hear(asked())
    assert len(site.jobs) == 1
    assert [state.type for state in server.ended] == ["COMPLETED"]


@pytest.mark.parametrize("state", [Cancelled(), Completed(), Running(message="claimed by site process 0")],
                         ids=["closed meanwhile", "done already", "in another process's hands"])
async def test_a_run_that_is_not_ours_to_begin_is_left_alone(state: State):
    server = Server(state)
    site = Site(server)
    await site.hear(asked())
    assert (site.jobs, server.ended) == ([], [])


async def test_a_run_that_the_coordinator_has_scheduled_meanwhile_is_claimed():
    server = Server(Scheduled())
    site = Site(server)
    await site.hear(asked())
    assert len(site.jobs) == 1
    assert server.ended[-1].is_completed()


async def test_who_is_busy_answers_afterwards():
    site = Site(Server())
    site.worker.limiter.acquire_on_behalf_of_nowait("another run")
    await site.hear(asked())
    assert site.jobs == []
    site.worker.limiter.release_on_behalf_of("another run")
    async with anyio.create_task_group() as group:
        site.worker._runs_task_group = group
        await site.worker._go_on()
    assert len(site.jobs) == 1


async def test_a_plan_that_is_asked_twice_while_it_is_answered_breaks_nothing():
    """A coordinator that was killed, and asks again."""
    server = Server(Running())
    site = Site(server)
    site.serves(server)
    await site.hear(asked(standing=server.id), asked(standing=server.id))
    assert {made.id for made in server.task_runs} == {task_run(server.id, "p1")}


async def test_who_is_held_begins_nothing_that_an_event_asks_for():
    server = Server()
    site = Site(server)
    site.held = "the work pool 'north' is paused"
    await site.hear(asked())
    assert (server.keys, site.jobs) == ([], [])
    server.state = Running()
    site.serves(server)
    site.worker._newest_plan = lambda run: Waiting("p1", SiteRequest.model_validate(PARAMETERS))
    await site.hear(asked(standing=server.id))
    await site.worker._look(server.id)
    assert (server.task_runs, site.jobs) == ([], [])
    site.held = None
    await site.worker._look(server.id)
    assert len(site.jobs) == 1


async def test_what_was_closed_while_the_site_was_busy_is_not_begun():
    site = Site(Server())
    site.worker.limiter.acquire_on_behalf_of_nowait("another run")
    await site.hear(asked(), asked(CLOSED))
    site.worker.limiter.release_on_behalf_of("another run")
    await site.worker._go_on()
    assert site.jobs == []


async def test_an_event_that_says_something_else_is_not_taken():
    site = Site(Server())
    event = asked()
    event.payload["command"] = "touch"
    await site.hear(event)
    assert site.jobs == []


@pytest.mark.parametrize("how", ["Paused", "Suspended", "Cancelled"])
async def test_work_whose_flow_run_somebody_has_changed_is_stopped_at_once(how: str, monkeypatch: pytest.MonkeyPatch):
    """Whoever hears events asks seldom, so the event has to say it."""
    monkeypatch.setattr(worker, "SHOWN_AFTER_S", 0.0)
    server = Server()
    site = Site(server)
    site.hold.clear()

    async def then() -> None:
        while site.worker._work is None or site.worker._work.flow_run is None:
            await anyio.sleep(0)
        server.state = State(type="PAUSED" if how != "Cancelled" else "CANCELLED")
        await site.worker._hear(Event(event=f"prefect.flow-run.{how}", resource={
            "prefect.resource.id": f"prefect.flow-run.{server.id}"}))
        assert site.worker._work.stop.is_set()

    await begun(site, server, then)


# -- one flow run for a whole campaign ---------------------------------------------------------------------------------


async def test_in_a_campaign_a_task_run_says_how_it_ended_and_the_flow_run_goes_on():
    server = Server(Running())
    site = Site(server)
    site.serves(server)
    await site.hear(asked(standing=server.id))
    assert (server.keys, server.ended) == ([], [])
    assert [(made.id, made.flow_run_id, made.state.type) for made in server.task_runs] == [
        (task_run(server.id, "p1"), server.id, "COMPLETED")]


async def test_a_campaigns_plan_that_waits_although_it_was_answered_is_answered_once_and_told_again():
    """A server that was killed before it wrote the task run down."""
    server = Server(Running())
    site = Site(server)
    site.serves(server)
    await site.hear(asked(standing=server.id))
    site.worker._newest_plan = lambda run: Waiting("p1", SiteRequest(**PARAMETERS))
    await site.worker._look(server.id)
    assert len(site.jobs) == 1
    first, again = server.task_runs
    assert first == again


async def test_a_campaign_that_is_not_ours_yet_is_not_answered():
    server = Server(Running())
    site = Site(server)
    await site.hear(asked(standing=server.id))
    assert (site.jobs, server.keys) == ([], [])


@pytest.mark.parametrize("state", [Cancelled(), Scheduled(), Completed()], ids=lambda state: state.name)
async def test_a_campaign_whose_flow_run_does_not_run_is_not_answered_and_left(state: State):
    server = Server(state)
    site = Site(server)
    site.serves(server)
    await site.hear(asked(standing=server.id))
    assert (site.jobs, site.worker._campaigns) == ([], {})


async def test_a_round_that_is_closed_is_stopped_and_the_campaign_is_not():
    server = Server(Running())
    site = Site(server)
    site.serves(server)
    site.hold.clear()
    async with anyio.create_task_group() as group:
        site.worker._runs_task_group = group
        await site.worker._hear(asked(standing=server.id))
        while not site.jobs:
            await anyio.sleep(0)
        await site.worker._hear(asked(CLOSED, plan="another", standing=server.id))
        await anyio.sleep(0)
        assert server.task_runs == []
        await site.worker._hear(asked(CLOSED, standing=server.id))
    assert [made.state.type for made in server.task_runs] == ["CANCELLED"]
    assert site.worker._campaigns == {server.id: CAMPAIGN}


async def test_a_campaign_that_is_cancelled_stops_the_work_and_says_so():
    server = Server(Running())
    site = Site(server)
    site.serves(server)
    server.state = State(type="CANCELLING")
    await site.hear(Event(event="prefect.flow-run.Cancelling", resource={
        "prefect.resource.id": f"prefect.flow-run.{server.id}"}))
    assert server.ended[-1].is_cancelled()
    assert site.worker._campaigns == {}


async def test_what_was_heard_of_a_campaigns_flow_run_is_good_for_some_rounds():
    server = Server(Running())
    site = Site(server)
    site.serves(server)
    await site.hear(asked(standing=server.id), asked(plan="p2", standing=server.id))
    assert server.counted == 1
    assert len(site.jobs) == 2


@pytest.mark.parametrize("how", ["Paused", "Suspended", "Cancelled"])
async def test_a_campaigns_flow_run_that_somebody_has_changed_is_asked_about_before_the_next_answer(how: str):
    server = Server(Running())
    site = Site(server)
    site.serves(server)
    await site.hear(asked(standing=server.id))
    server.state = State(type="PAUSED" if how != "Cancelled" else "CANCELLED")
    await site.hear(Event(event=f"prefect.flow-run.{how}", resource={
        "prefect.resource.id": f"prefect.flow-run.{server.id}"}), asked(plan="p2", standing=server.id))
    assert (len(site.jobs), site.worker._campaigns) == (1, {})


@pytest.mark.parametrize("beyond", [{"round": 4}, {"run": "summer"}, {"round": -1}], ids=str)
async def test_a_flow_run_is_not_kept_open_beyond_the_campaign_it_was_made_for(beyond: dict[str, str | int]):
    """A coordinator, or whoever holds its key for the API, that asks for more than the flow run says."""
    server = Server(Running())
    site = Site(server)
    site.serves(server)
    await site.hear(asked(standing=server.id, **beyond))
    assert (site.jobs, server.task_runs, site.worker._campaigns) == ([], [], {})
    assert [state.type for state in server.ended] == ["FAILED"]


async def test_a_plan_beyond_the_campaign_that_lies_in_the_store_is_not_answered_within_it():
    server = Server(Running())
    site = Site(server)
    site.serves(server)
    site.worker._newest_plan = lambda run: Waiting("p9", SiteRequest(**{**PARAMETERS, "round": 9}))
    await site.worker._look(server.id)
    assert (site.jobs, [state.type for state in server.ended]) == ([], ["FAILED"])


async def test_a_campaign_for_the_last_round_asks_about_its_model_too():
    server = Server(Running())
    site = Site(server)
    site.serves(server)
    await site.hear(asked(standing=server.id, round=3, purpose="evaluate"))
    assert len(site.jobs) == 1
