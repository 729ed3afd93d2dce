"""What a site may say in the body of a call, and what is made of it.

A judge parses the body as a type that knows just what a site's worker says, and writes it anew, about the site's own pool.
Raises ContractError for anything else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, StringConstraints

from fedround.errors import ContractError
from fedround.values import MAX_NUMBER, Attempt, Digest, Name, Purpose, Value, parse
from infra.asking import ROUND_RUN, SITE_FLOW, Ended, answered, resource
from infra.doorkeeper.behind import Behind

MAX_BODY = 1 << 18
"""Bytes of a site's call, and of a message in its stream: the longest honest one is some thousand."""

Words = Annotated[str, StringConstraints(max_length=2000)]
Final = Literal["COMPLETED", "FAILED", "CANCELLED"]


@dataclass(frozen=True)
class Said:
    """A call as it came."""

    site: str
    id: str
    """In the path; empty where the path has none."""
    body: bytes
    behind: Behind


Judge = Callable[[Said], Awaitable[bytes]]
"""Returns the body that is sent on."""


# -- the pool ----------------------------------------------------------------------------------------------------------


async def as_it_is(said: Said) -> bytes:
    """The path says everything."""
    return b""


class _PoolsAsked(Value):
    limit: int | None = None
    offset: int = 0
    work_pools: None = None


async def own_pool_alone(said: Said) -> bytes:
    """A question for pools: is answered with the site's own."""
    parse(_PoolsAsked, said.body, "question for pools")
    return _json({"work_pools": {"name": {"any_": [said.site]}}, "limit": 1, "offset": 0})


class _Template(Value):
    base_job_template: dict[str, Any]
    description: None = None
    is_paused: None = None
    concurrency_limit: None = None
    storage_configuration: None = None


async def empty_template(said: Said) -> bytes:
    """A pool of a site sets nothing, so the only template that may be written is the empty one."""
    if parse(_Template, said.body, "change of a pool").base_job_template != {}:
        raise ContractError("change of a pool: a site's pool has an empty template")
    return _json({"base_job_template": {}})


class _Poll(Value):
    work_queue_names: tuple[str, ...] | None = None
    scheduled_before: str | None = None
    limit: int | None = None


async def poll(said: Said) -> bytes:
    """What waits in the own pool."""
    return _dump(parse(_Poll, said.body, "poll"))


class _Heartbeat(Value):
    name: Annotated[str, StringConstraints(max_length=60)]
    heartbeat_interval_seconds: Annotated[float, Field(gt=0, le=3600)] | None = None
    """Prefect multiplies it by three in one statement for all workers: beyond 32 bits, none of them ever counts as away."""


async def heartbeat(said: Said) -> bytes:
    """A sign of life of the own worker (`site_workers.worker_name`)."""
    sign = parse(_Heartbeat, said.body, "heartbeat")
    if re.fullmatch(rf"{said.site}(-[0-9a-f]{{8}})?", sign.name) is None:
        raise ContractError(f"heartbeat: '{sign.name}' is no name of the worker of site '{said.site}'")
    return _dump(sign)


class _MembersAsked(Value):
    workers: None = None
    work_queues: None = None
    limit: int | None = None
    offset: int | None = None


async def what_is_in_it(said: Said) -> bytes:
    """Who else serves the own pool, or what queues it has."""
    return _dump(parse(_MembersAsked, said.body, "question for workers or queues"))


# -- flow runs ---------------------------------------------------------------------------------------------------------


class _RunsAsked(Value):
    flow_runs: dict[str, Any] | None = None
    work_pools: dict[str, Any] | None = None
    flows: None = None
    task_runs: None = None
    deployments: None = None
    work_pool_queues: None = None
    sort: str | None = None
    limit: int | None = None
    offset: int = 0


async def runs_of_own_pool(said: Said) -> bytes:
    """Whatever it asks for, only runs of the own pool are found: Prefect's filters hold together."""
    asked = parse(_RunsAsked, said.body, "question for flow runs").model_dump(exclude_none=True)
    return _json({**asked, "work_pools": {"name": {"any_": [said.site]}}})


async def own_run(said: Said) -> bytes:
    """A run that is in the own pool."""
    if not await said.behind.has_run(said.site, said.id):
        raise ContractError(f"flow run {said.id} is not in the pool of site '{said.site}'")
    return b""


class _Sign(Value):
    infrastructure_pid: Literal["at work"]


async def sign_of_own_run(said: Said) -> bytes:
    """The work in a run of the own pool moves. These words change nothing but the time of the last change."""
    sign = parse(_Sign, said.body, "sign of a flow run")
    await own_run(said)
    return _dump(sign)


class _Details(Value):
    model_config = ConfigDict(extra="ignore")

    flow_run_id: UUID | None = None
    transition_id: UUID | None = None
    scheduled_time: str | None = None
    pause_timeout: str | None = None
    pause_reschedule: bool | None = None


class _State(Value):
    type: Literal["RUNNING", "SCHEDULED", "PAUSED", Final]
    name: Words | None = None
    message: Words | None = None
    data: None = None
    state_details: _Details = _Details()


class _SetState(Value):
    state: _State
    force: bool = False


async def state_of_own_run(said: Said) -> bytes:
    """A run of the own pool begins, ends, is suspended, or is scheduled again (what a dead process left)."""
    wanted = parse(_SetState, said.body, "state of a flow run")
    await own_run(said)
    if wanted.state.state_details.flow_run_id not in (None, UUID(said.id)):
        raise ContractError("state of a flow run: it names another run")
    return _dump(wanted)


class _Parameters(Value):
    run: Name
    round: Annotated[int, Field(ge=0, le=MAX_NUMBER)]
    attempt: Attempt
    purpose: Purpose


class _FirstState(Value):
    type: Literal["RUNNING", Final]
    name: Words
    message: Words | None


class _NewRun(Value):
    flow_id: UUID
    work_pool_name: Name
    name: Words
    tags: Annotated[tuple[str, ...], Field(min_length=1, max_length=1)]
    labels: dict[str, UUID]
    idempotency_key: str
    parameters: _Parameters
    state: _FirstState


async def new_run(said: Said) -> bytes:
    """A run in the own pool for a plan that asks the site: its name, tag and key are the site's own for that plan."""
    made = parse(_NewRun, said.body, "new flow run")
    asked, site = made.parameters, said.site
    tag = f"{asked.run}/{asked.purpose}-{asked.round:05d}" + (f"-{asked.attempt:02d}" if asked.attempt > 1 else "")
    plan, who, count = [*made.idempotency_key.split("/"), "", ""][:3]
    parse(_Plan, {"plan": plan}, "new flow run: the key")
    if (made.work_pool_name, made.tags, made.name, who) != (site, (tag,), f"{tag}/{site}", site) or not (
            re.fullmatch("[0-9]{1,6}", count) and made.idempotency_key == f"{plan}/{site}/{count}"
            and made.labels.keys() <= {ROUND_RUN}):
        raise ContractError(f"new flow run: pool, name, tag and key are not those of site '{site}' for this plan")
    return _json({**made.model_dump(mode="json"), "flow_id": await said.behind.flow_id(SITE_FLOW)})


class _Plan(Value):
    plan: Digest


class _Flow(Value):
    name: Literal["site-round"]
    tags: tuple[str, ...] = ()
    labels: dict[str, Any] | None = None


async def own_flow(said: Said) -> bytes:
    """The one flow of which a site begins runs, by name."""
    return _json({"name": parse(_Flow, said.body, "flow").name})


# -- events ------------------------------------------------------------------------------------------------------------


class _Told(Value):
    run: UUID
    plan: Digest
    name: Words
    ended: Ended


async def answered_event(said: Said) -> bytes:
    """How a plan was answered within the campaign's flow run, which is in the own pool. No other event.

    It must be the worker's, word for word: a payload may name a task run of its own, and the server believes it.
    """
    problem = ContractError("event: a site says how it has answered a plan of a campaign, and nothing else")
    try:
        [event] = json.loads(said.body)
        task, state = event["payload"]["task_run"], event["payload"]["validated_state"]
        told = parse(_Told, {
            "run": event["related"][0]["prefect.resource.id"].removeprefix("prefect.flow-run."),
            "plan": task["dynamic_key"], "name": task["name"],
            "ended": {"type": state["type"], "message": state["message"], "began": task["start_time"],
                      "at": task["end_time"]}}, "event")
        words = answered(told.run, told.plan, told.name, told.ended)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError):
        raise problem from None
    if event != words or not await said.behind.has_run(said.site, str(told.run)):
        raise problem
    return _json([words])


def what_it_hears(site: str, pool_id: str, message: dict[str, Any]) -> dict[str, Any]:
    """What a stream is to bring: of all that was asked for, what is about the own pool or told to the site."""
    if message.get("type") != "filter":
        raise ContractError("stream of events: expected a filter")
    asked = message.get("filter")
    wanted = asked if isinstance(asked, dict) else {}
    kept = {key: wanted[key] for key in ("occurred", "event") if isinstance(wanted.get(key), dict)}
    return {"type": "filter", "filter": {
        **kept, "any_resource": {"id": [f"prefect.work-pool.{pool_id}", resource(site)]}}}


def _dump(value: Value) -> bytes:
    return value.model_dump_json(exclude_none=True).encode()


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
