"""The coordinator's steps as task runs: `tasks/` has the work, and here it gets a name and is run once.

Prefect retries no step and keeps no result: a round that stops is run again, and finds in the object store what is there
already. So Prefect's task engine has nothing to do here. A step reports how it ended, in one event with its times. A step
that waits for sites also reports that it has begun.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, ParamSpec, TypeVar

from prefect import runtime
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Cancelled, Completed, Failed, Running
from prefect.types._datetime import now
from prefect.utilities.engine import emit_task_run_state_change_event

import tasks.aggregate
import tasks.ask
import tasks.collect
import tasks.evaluate
import tasks.gather
import tasks.invite
import tasks.plan
import tasks.publish
import tasks.report
import tasks.unmask
from infra.stores import Patience
from tasks.coordinator import Coordinator

STEP_S = 6 * 3600.0
"""How long a step may go on asking the store. Collecting has a patience of its own, which follows the plan's deadline."""

Asked = ParamSpec("Asked")
Given = TypeVar("Given")


def _step(function: Callable[Asked, Given], name: str, *, waits: bool = False) -> Callable[Asked, Given]:
    """`function`, which reports to the flow run how it went. waits: it takes long, so its begin is reported too."""
    if iscoroutinefunction(function):
        @wraps(function)
        async def waited(*arguments: Asked.args, **named: Asked.kwargs) -> Any:
            with _told(name, waits):
                return await function(*arguments, **named)

        return waited  # type: ignore[return-value]

    @wraps(function)
    def step(*arguments: Asked.args, **named: Asked.kwargs) -> Given:
        patience = Patience(STEP_S)
        within = [one.within(patience) if isinstance(one, Coordinator) else one for one in arguments]
        with _told(name, waits):
            return function(*within, **named)  # type: ignore[arg-type]

    return step


_IN_ONE: ContextVar[bool] = ContextVar("in one step", default=False)


@contextmanager
def one_step(name: str) -> Iterator[None]:
    """All that is done until its end is one task run of this flow run: the steps in it are not told apart.

    Done again after a kill, it is the same task run.
    """
    with _told(name, True, uuid.uuid5(uuid.UUID(str(runtime.flow_run.id)), name)):
        token = _IN_ONE.set(True)
        try:
            yield
        finally:
            _IN_ONE.reset(token)


def in_one() -> bool:
    """Whether this is a part of a larger step, so that the flow run stands for more than one round."""
    return _IN_ONE.get()


@contextmanager
def _told(name: str, waits: bool, known: uuid.UUID | None = None) -> Iterator[None]:
    if in_one():
        yield
        return
    begun = now("UTC")
    run = TaskRun(id=known or uuid.uuid4(), name=name, flow_run_id=runtime.flow_run.id, task_key=f"{name}-step",
                  dynamic_key=begun.isoformat(), run_count=1, start_time=begun, expected_start_time=begun)

    def tell(state: State[Any], initial: State[Any] | None = None) -> None:
        emit_task_run_state_change_event(run, initial, state)

    running: State[Any] = Running(timestamp=begun)
    if waits:
        tell(running)
    try:
        yield
    except BaseException as error:
        stopped = isinstance(error, asyncio.CancelledError)
        _close(run)
        tell(Cancelled() if stopped else Failed(message=f"{type(error).__name__}: {error}"), running)
        raise
    _close(run)
    tell(Completed(), running)


def _close(run: TaskRun) -> None:
    ended = now("UTC")
    run.end_time = ended  # type: ignore[assignment]    # of `now`, Prefect says less than it returns
    if run.start_time is not None:
        run.total_run_time = ended - run.start_time


plan_round = _step(tasks.plan.plan_round, "plan")
plan_question = _step(tasks.ask.plan_question, "plan")
invite = _step(tasks.invite.invite, "invite")
collect = _step(tasks.collect.collect, "collect", waits=True)
plan_countersign = _step(tasks.unmask.plan_countersign, "ask who is in the sum")
countersign = _step(tasks.collect.collect, "countersign", waits=True)
plan_reveal = _step(tasks.unmask.plan_reveal, "ask for the sum")
reveal = _step(tasks.collect.collect, "reveal", waits=True)
gather = _step(tasks.gather.gather, "add up regions", waits=True)
unmask = _step(tasks.unmask.unmask_sum, "unmask")
aggregate = _step(tasks.aggregate.aggregate, "aggregate")
publish = _step(tasks.publish.publish, "publish")
conclude = _step(tasks.ask.conclude, "conclude")
evaluate = _step(tasks.evaluate.evaluate, "evaluate")
report = _step(tasks.report.report, "report")
