"""The coordinator's Prefect worker: runs the federation's flows, one at a time, in its own warm process.

One at a time is a promise: two rounds of one federation never overlap, because every way to start one (schedule, UI,
command line) is a flow run in this worker's pool, and a second coordinator process on the same folder is refused.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import threading
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from prefect import Flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.context import SyncClientContext
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow_async
from prefect.states import Cancelled, Completed, Crashed, Failed, Scheduled, State
from prefect.types._datetime import now
from pydantic import BaseModel, ValidationError

from fedround.errors import ContractError
from fedround.values import in_words
from flows.federated_drift import federated_drift
from flows.federated_join import federated_join
from flows.federated_measurement import federated_measurement
from flows.federated_promotion import federated_promotion
from flows.federated_round import federated_round
from flows.federated_training import federated_training
from flows.forms import ungrouped
from infra.deploying import Change
from infra.prefect_client import is_in, set_state
from infra.warm_worker import WarmWorker
from tasks.ask import MeasurementRequest
from tasks.coordinator import FOLDER_VARIABLE
from tasks.drift import DriftRequest
from tasks.joins import JoinRequest
from tasks.progress import read_progress
from tasks.promote import PromotionRequest
from tasks.requests import NextRoundRequest, TrainingRequest

FLOWS: dict[str, tuple[Flow[Any, Any], type[BaseModel]]] = {flow.name: (flow, request) for flow, request in (
    (federated_training, TrainingRequest), (federated_round, NextRoundRequest), (federated_measurement, MeasurementRequest),
    (federated_drift, DriftRequest), (federated_promotion, PromotionRequest), (federated_join, JoinRequest))}
"""The flows that can be asked for, by name, and the form of each."""
CANCELLATION_POLL_S = 2.0
_MADE_UP = "its time was missed, and so was a later one, which makes up for both"
_STOPPED = "stopped by request; committed rounds stay"


class CoordinatorWorker(WarmWorker):
    """Serves the coordinator's pool."""

    type = "fedround-coordinator"
    flow_names = frozenset(FLOWS)
    _display_name = "fedround coordinator"
    _description = "Runs the federation's rounds, one at a time, inside its long-lived process."

    def __init__(self, pool: str, repair: Callable[[PrefectClient], Awaitable[list[Change]]]):
        """repair: makes what is lost of the pool and the deployments."""
        super().__init__(pool)
        self._make_again = repair

    async def _repair(self) -> list[Change]:
        return await self._make_again(self.client)

    async def perform(self, flow_run: FlowRun) -> None:
        """Run the flow with Prefect's engine, in a thread with a loop of its own: the worker's heartbeat goes on."""
        flow_run = await self.client.read_flow_run(flow_run.id)      # a poll's answer may be older than our last run
        if flow_run.state is None or not flow_run.state.is_scheduled():
            return
        if await self._is_made_up_by_another(flow_run):
            await set_state(self.client, flow_run.id, Cancelled(message=_MADE_UP), force=True)
            self._heard_while_busy = True       # the later one is due, and need not wait for the next poll
            return
        flow, form = FLOWS[await self._flow_name(flow_run.flow_id)]
        try:
            request = _request(form, flow_run.parameters)
        except ContractError as error:
            await set_state(self.client, flow_run.id, Failed(message=str(error)), force=True)
            return
        running, before = _Running(flow, flow_run, request), self._said()
        async with anyio.create_task_group() as group:
            group.start_soon(self._cancel_when_asked, running)
            await anyio.to_thread.run_sync(running.run, abandon_on_cancel=False)
            group.cancel_scope.cancel()
        if running.finished and running.suspended:      # or whoever resumes it would have all of it done again
            await set_state(self.client, flow_run.id, Completed(message="done before it was suspended"), force=True)
        if running.suspended:       # Prefect asks at a round's end only, and then leaves the round as it was
            for run in await self._within(flow_run, StateType.RUNNING):
                await set_state(self.client, run.id, Completed(message="done; then it was suspended"), force=True)
        if running.cancelled:
            said = self._said()
            await self._cancelled(flow_run, said if said is not None and said != before else _STOPPED)

    async def _is_made_up_by_another(self, flow_run: FlowRun) -> bool:
        """Whether a later time of the same schedule is due as well: after a week without this process one round is made, and
        not seven in a row, each of which is paid for.
        """
        if not flow_run.auto_scheduled or flow_run.deployment_id is None:
            return False
        waiting = await self.client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
                expected_start_time=FlowRunFilterExpectedStartTime(before_=now("UTC"))),
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[flow_run.deployment_id])))
        return is_made_up(flow_run, waiting)

    async def _cancelled(self, flow_run: FlowRun, message: str) -> None:
        """Prefect's engine says "crashed" of a flow whose task was cancelled, and of the rounds within it."""
        for run in (*await self._within(flow_run, StateType.CRASHED, StateType.RUNNING), flow_run):
            await set_state(self.client, run.id, Cancelled(message=message), force=True)

    async def _within(self, flow_run: FlowRun, *states: StateType) -> list[FlowRun]:
        return await self.client.read_flow_runs(flow_run_filter=FlowRunFilter(
            parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[flow_run.id]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states)))))

    def _said(self) -> str | None:
        """What the last round said of its end."""
        progress = read_progress(Path(os.environ[FOLDER_VARIABLE])) if FOLDER_VARIABLE in os.environ else None
        return None if progress is None else progress.problem

    async def _cancel_when_asked(self, running: _Running) -> None:
        while True:
            await anyio.sleep(CANCELLATION_POLL_S)
            try:
                asked = await is_in(self.client, running.flow_run.id, StateType.CANCELLING, StateType.CANCELLED)
            except Exception as error:
                self._log("ask about cancellation", error)
                continue
            if asked:
                running.cancel()
                return

    async def _close_runs_of_a_dead_predecessor(self) -> None:
        """Campaigns and promotions of a killed process are run again and do what is left. Single rounds are closed. What
        somebody had asked to stop stays stopped.
        """
        running = await self.client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(
                any_=[StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]))),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[self._work_pool_name])))
        for run in running:
            await set_state(self.client, run.id, await self._after_its_process(run), force=True)

    async def _after_its_process(self, run: FlowRun) -> State[Any]:
        """The state of a run whose process is gone."""
        if await is_in(self.client, run.id, StateType.CANCELLING, StateType.CANCELLED):      # since it was listed
            return Cancelled(message=_STOPPED)
        if await self._flow_name(run.flow_id) in (federated_training.name, federated_promotion.name):
            return Scheduled(message="the coordinator's process ended; a new one goes on")
        return Crashed(message="the coordinator's process ended; run the round again: it goes on where it stopped")


def is_made_up(flow_run: FlowRun, waiting: Iterable[FlowRun]) -> bool:
    """Whether one of these, which are due, is of the schedule too, and later."""
    mine = flow_run.expected_start_time
    return mine is not None and any(other.auto_scheduled and other.expected_start_time is not None
                                    and other.expected_start_time > mine for other in waiting)


def _request(form: type[BaseModel], parameters: dict[str, Any]) -> BaseModel:
    """The request, checked. Raises ContractError.

    It is checked here because the server lets unknown parameters through, and Prefect's own check would load any block that a
    parameter names.
    """
    if set(parameters) != {"request"}:
        raise ContractError("nothing was run: expected one parameter, 'request', as the form has it")
    try:
        return form.model_validate_json(json.dumps(ungrouped(parameters["request"])))       # as JSON: there a tuple is a list
    except ValidationError as error:
        raise ContractError(f"nothing was run: {in_words(error)}") from None


class _Running:
    """One flow run on a loop of its own, which another thread may cancel."""

    def __init__(self, flow: Flow[Any, Any], flow_run: FlowRun, request: BaseModel):
        self.flow, self.flow_run, self.request, self.cancelled = flow, flow_run, request, False
        self.suspended = False
        """Suspended, or waiting for a person: Prefect stopped it at a check, and it begins anew once it is resumed."""
        self.finished = False
        """Its work is done, whatever state the flow run is given afterwards."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._lock = threading.Lock()

    def run(self) -> None:
        """Run to the end. If the flow fails, that is its final state, not an exception here."""
        try:
            asyncio.run(self._main())
        except asyncio.CancelledError:
            pass
        except Pause:           # no Exception: it would end the worker's process, and every run after this one with it
            self.suspended = True

    def cancel(self) -> None:
        """Ask it to stop at its next await."""
        with self._lock:
            self.cancelled = True
            if self._loop is not None and self._task is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)

    async def _main(self) -> None:
        with self._lock:
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        with SyncClientContext.get_or_create():      # one for the whole campaign: every task would make its own
            await run_flow_async(
                self._noticed(), flow_run=self.flow_run, parameters={"request": self.request}, return_type="state")

    def _noticed(self) -> Flow[Any, Any]:
        """The flow. It records its own end, even where Prefect stops it before it can report that."""
        async def work(request: BaseModel) -> Any:
            result = await self.flow.fn(request)
            self.finished = True
            return result

        flow = copy.copy(self.flow)
        flow.fn = work
        return flow
