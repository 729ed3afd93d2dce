"""What `infra/warm_worker.py` and the two workers take for granted of the pinned Prefect, private API included.

Red after an upgrade of Prefect: read what changed there, change the workers, then this page.
"""

from __future__ import annotations

import inspect
import tomllib
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import anyio
import httpx
import prefect
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterIdempotencyKey,
    FlowRunFilterTags,
    TaskRunFilter,
    TaskRunFilterId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.exceptions import ObjectAlreadyExists
from prefect.flow_engine import run_flow_async
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings
from prefect.states import Cancelled, Completed, Failed, Running, Scheduled
from prefect.types._datetime import now
from prefect.workers.base import BaseWorker

from infra import unreadable
from infra.asking import Asked, Ended, answered, task_run
from infra.prefect_client import is_in
from infra.stack import LocalStack
from site_workers.flow_runs import FlowRuns
from site_workers.worker import SiteWorker


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)        # type: ignore[arg-type]


# -- names and signatures ----------------------------------------------------------------------------------------------


def test_prefect_is_the_version_that_was_read():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert f"prefect=={prefect.__version__}" in project["dependencies"]


def test_the_methods_that_are_overridden_or_called_are_there():
    assert parameters(BaseWorker._submit_run) == ["self", "flow_run"]
    assert parameters(BaseWorker._submit_scheduled_flow_runs) == ["self", "flow_run_response"]
    assert parameters(BaseWorker._release_limit_slot) == ["self", "flow_run_id"]
    assert parameters(BaseWorker.get_and_submit_flow_runs) == ["self"]
    assert parameters(BaseWorker.sync_with_backend) == ["self"]
    assert parameters(BaseWorker.setup) == ["self"]
    assert parameters(BaseWorker._emit_worker_started_event) == ["self"]
    assert "if self._started_event:" in inspect.getsource(BaseWorker.teardown), "no event when it stops, either"
    for method in ("_emit_worker_started_event", "_submit_run", "_submit_scheduled_flow_runs",
                   "get_and_submit_flow_runs", "sync_with_backend", "setup"):
        assert inspect.iscoroutinefunction(getattr(BaseWorker, method)), method


def test_the_attributes_that_are_used_are_there():
    worker = SiteWorker("nowhere", lambda parameters, cancelled: "done")
    assert worker._submitting_flow_run_ids == set()
    assert worker._work_pool_name == "nowhere"
    assert worker._runs_task_group is None
    assert worker._has_successfully_synced is False
    assert worker._logger.name == "prefect.workers.fedround-site.nowhere"
    for name in ("limiter", "client", "work_pool"):
        assert isinstance(getattr(BaseWorker, name), property), name


def test_the_worker_loops_call_what_is_overridden():
    """Polling by `get_and_submit_flow_runs`, submission by `_submit_run`: otherwise the overrides would sleep."""
    assert "workload=self.get_and_submit_flow_runs" in inspect.getsource(BaseWorker.start)
    assert "self.sync_with_backend()" in inspect.getsource(BaseWorker._sync_and_initialize)
    submission = inspect.getsource(BaseWorker._submit_scheduled_flow_runs)
    assert "self._submit_run" in submission
    assert "acquire_on_behalf_of_nowait(flow_run.id)" in submission
    assert "self._submitting_flow_run_ids.add(flow_run.id)" in submission


def test_the_base_workers_own_cancellation_is_off():
    """It would call `kill_infrastructure`, which in a warm process kills nothing. Ours is a question between two steps."""
    assert get_current_settings().worker.enable_cancellation is False


def test_a_wake_up_is_built_from_these_fields():
    assert {"work_pool_id", "work_queue_id", "flow_run"} <= WorkerFlowRunResponse.model_fields.keys()
    assert {"next_scheduled_start_time", "expected_start_time", "work_queue_id", "run_count"} <= FlowRun.model_fields.keys()


def test_the_engine_takes_a_flow_run_that_is_there_already():
    assert {"flow", "flow_run", "parameters", "return_type"} <= set(parameters(run_flow_async))


async def test_the_method_that_would_start_something_is_never_reached():
    with pytest.raises(NotImplementedError):
        await SiteWorker("nowhere", lambda parameters, cancelled: "done").run(None, None)      # type: ignore[arg-type]


# -- an API that is away -----------------------------------------------------------------------------------------------


class Away(SiteWorker):
    """A worker whose every request ends in `error`."""

    type = "fedround-away"
    error: httpx.HTTPError

    async def _get_scheduled_flow_runs(self) -> list[WorkerFlowRunResponse]:
        raise self.error


async def poll(error: httpx.HTTPError) -> list[FlowRun]:
    worker = Away("nowhere", lambda parameters, cancelled: "done")
    worker.error, worker._has_successfully_synced = error, True
    return await worker.get_and_submit_flow_runs()


def answer(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://127.0.0.1:9/api")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, request=request))


@pytest.mark.parametrize("error", [httpx.ConnectError("down"), httpx.ReadTimeout("slow"), answer(503)], ids=repr)
async def test_a_poll_survives_an_api_that_is_away(error: httpx.HTTPError):
    """Prefect's loop ends a worker after twelve failures in a row, which is some minutes."""
    for _ in range(20):
        assert await poll(error) == []


async def test_a_poll_does_not_survive_a_login_that_was_taken_back():
    with pytest.raises(httpx.HTTPStatusError):
        await poll(answer(401))


# -- behaviour of the server -------------------------------------------------------------------------------------------

stack_only = pytest.mark.stack
POOL = "contract"


@pytest.fixture
async def client(stack: LocalStack) -> AsyncIterator[PrefectClient]:
    info = stack.start(lambda _: None)
    async with PrefectClient(info.api_url) as client:
        with suppress(ObjectAlreadyExists):
            await client.create_work_pool(WorkPoolCreate(
                name=POOL, type=SiteWorker.type, base_job_template=SiteWorker.get_default_base_job_template()))
        yield client


async def scheduled(client: PrefectClient, **more: object) -> FlowRun:
    """A flow run that waits in the pool."""
    state = Scheduled().model_dump(mode="json", include={"type", "name", "state_details"})
    made = await client.request("POST", "/flow_runs/", json={
        "flow_id": str(await client.create_flow_from_name("site-round")), "work_pool_name": POOL, "state": state,
        "parameters": {}, **more})
    return await client.read_flow_run(uuid.UUID(made.json()["id"]))


@stack_only
async def test_all_runs_are_found_however_many_there_are(client: PrefectClient, monkeypatch: pytest.MonkeyPatch):
    """Also with one among them that the server cannot show."""
    monkeypatch.setattr(unreadable, "_PAGE", 2)
    tag = uuid.uuid4().hex
    made = [(await scheduled(client, tags=[tag])).id for _ in range(5)]
    wanted = FlowRunFilter(tags=FlowRunFilterTags(all_=[tag]))
    assert sorted(run.id for run in (await unreadable.sifted(client, wanted)).runs) == sorted(made)
    deep: dict = {}
    for _ in range(400):
        deep = {"x": deep}
    with pytest.raises(httpx.HTTPStatusError):
        await scheduled(client, tags=[tag], parameters=deep)
    found = await unreadable.sifted(client, wanted)
    assert sorted(run.id for run in found.runs) == sorted(made)
    assert len(found.unreadable) == 1
    await client.delete_flow_run(found.unreadable[0])


@stack_only
async def test_of_two_claimants_one_is_rejected(client: PrefectClient):
    run = await scheduled(client)
    assert await FlowRuns(client, POOL, "one").claim(run)
    assert not await FlowRuns(client, POOL, "two").claim(run)
    assert "claimed by one" in (await client.read_flow_run(run.id)).state.message


@stack_only
async def test_a_claim_whose_answer_was_lost_is_ones_own(client: PrefectClient):
    run, mine = await scheduled(client), FlowRuns(client, POOL, "one")
    assert await mine.claim(run)
    assert await mine.claim(run), "the request was sent again"


def asked() -> Asked:
    return Asked(tag="r/train-00001", by=str(uuid.uuid4()), plan=uuid.uuid4().hex, tries={}, standing={},
                 parameters={"run": "r", "round": 1, "attempt": 1, "purpose": "train"})


@stack_only
async def test_a_site_that_is_asked_begins_a_run_in_its_pool_that_nobody_else_begins_again(client: PrefectClient):
    question = asked()
    run = await FlowRuns(client, POOL, "one").begin(question)
    begun = await client.read_flow_run(run.id)
    assert (begun.work_pool_name, begun.state.type, begun.run_count) == (POOL, "RUNNING", 1)
    assert begun.start_time is not None
    assert await FlowRuns(client, POOL, "two").begin(question) is None
    assert (await FlowRuns(client, POOL, "one").begin(question)).id == run.id, "the request was sent again"
    await client.set_flow_run_state(run.id, Completed())
    assert await FlowRuns(client, POOL, "one").begin(question) is None


@stack_only
async def test_short_work_has_its_run_made_in_the_state_in_which_it_ended(client: PrefectClient):
    question, mine = asked(), FlowRuns(client, POOL, "one")
    assert not await mine.is_known(question)
    await mine.make_ended(question, Completed(message="update"))
    await mine.make_ended(question, Failed(message="the request was sent again"))
    assert await mine.is_known(question)
    [made] = await client.read_flow_runs(flow_run_filter=FlowRunFilter(
        idempotency_key=FlowRunFilterIdempotencyKey(any_=[question.key(POOL)])))
    assert (made.work_pool_name, made.state.type, made.state.message) == (POOL, "COMPLETED", "update")


@stack_only
async def test_a_run_that_was_begun_or_scheduled_meanwhile_is_brought_to_its_end(client: PrefectClient):
    for begin in (lambda question: FlowRuns(client, POOL, "one").begin(question),
                  lambda question: scheduled(client, idempotency_key=question.key(POOL))):
        question = asked()
        run = await begin(question)
        await FlowRuns(client, POOL, "one").make_ended(question, Completed())
        assert (await client.read_flow_run(run.id)).state.is_completed()


@stack_only
async def test_what_a_site_says_of_a_campaigns_plan_becomes_a_task_run_of_its_flow_run_once(client: PrefectClient):
    run, plan = await scheduled(client), uuid.uuid4().hex
    words = answered(run.id, plan, "r/train-00001", Ended(
        type="COMPLETED", message="update", began=now("UTC"), at=now("UTC")))
    wanted, found = TaskRunFilter(id=TaskRunFilterId(any_=[task_run(run.id, plan)])), []
    await client.request("POST", "/events", json=[words, words])
    while not found:
        await anyio.sleep(0.1)
        found = await client.read_task_runs(task_run_filter=wanted)
    assert [(one.flow_run_id, one.name, one.state.type, one.state.message) for one in found] == [
        (run.id, "r/train-00001", "COMPLETED", "update")]
    assert found[0].start_time is not None
    assert len(await client.read_task_run_states(found[0].id)) == 1


@stack_only
async def test_a_run_that_was_scheduled_and_closed_under_the_key_is_not_begun(client: PrefectClient):
    question = asked()
    run = await scheduled(client, idempotency_key=question.key(POOL))
    await client.set_flow_run_state(run.id, Cancelled())
    assert await FlowRuns(client, POOL, "one").begin(question) is None


@stack_only
async def test_a_count_says_whether_a_run_runs(client: PrefectClient):
    run = await scheduled(client)
    assert not await is_in(client, run.id, "RUNNING")
    await client.set_flow_run_state(run.id, Running())
    assert await is_in(client, run.id, "RUNNING")


@stack_only
async def test_it_is_the_derived_transition_id_that_rejects(client: PrefectClient):
    """With ids of their own both would be let into Running. That is why the id is derived from the run."""
    run = await scheduled(client)
    for _ in range(2):
        assert (await client.set_flow_run_state(run.id, Running())).status.value == "ACCEPT"


@stack_only
async def test_a_run_that_is_scheduled_again_can_be_claimed_again(client: PrefectClient):
    """After a killed process: its successor puts the run back and takes it."""
    run = await scheduled(client)
    assert await FlowRuns(client, POOL, "dead").claim(run)
    await client.set_flow_run_state(run.id, Scheduled(message="again"), force=True)
    again = await client.read_flow_run(run.id)
    assert again.run_count > run.run_count
    assert await FlowRuns(client, POOL, "alive").claim(again)


@stack_only
async def test_a_stale_claim_after_completion_is_accepted(client: PrefectClient):
    """Known weakness: so a site's job must end well when it is run twice (outbox and ledger see to that)."""
    run = await scheduled(client)
    assert await FlowRuns(client, POOL, "one").claim(run)
    await client.set_flow_run_state(run.id, Completed())
    assert await FlowRuns(client, POOL, "two").claim(run)


@stack_only
async def test_the_server_lets_unknown_top_level_parameters_through(client: PrefectClient):
    """So the workers check parameters themselves, whatever `enforce_parameter_schema` promises."""
    from site_workers.round import SiteRequest

    deployment = await client.create_deployment(
        await client.create_flow_from_name("site-round"), name="contract", work_pool_name=POOL,
        parameter_openapi_schema={**SiteRequest.model_json_schema(), "additionalProperties": True},
        enforce_parameter_schema=True)
    made = await client.create_flow_run_from_deployment(deployment, parameters={
        "run": "r", "round": 1, "attempt": 1, "purpose": "train", "command": "touch"}, state=Scheduled())
    assert made.parameters["command"] == "touch"


@stack_only
async def test_a_scheduled_run_is_announced_with_its_pool(client: PrefectClient, stack: LocalStack):
    """The event that wakes a worker: its resource is the run, and the pool is among the related ones."""
    from prefect.events.clients import get_events_subscriber
    from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter

    pool = await client.read_work_pool(POOL)
    wanted = EventFilter(event=EventNameFilter(name=["prefect.flow-run.Scheduled"]),
                         any_resource=EventAnyResourceFilter(id=[f"prefect.work-pool.{pool.id}"]))
    with temporary_settings({PREFECT_API_URL: stack.start(lambda _: None).api_url}):
        async with get_events_subscriber(filter=wanted) as events:
            run = await scheduled(client)
            async for event in events:
                if event.resource.id == f"prefect.flow-run.{run.id}":
                    return
