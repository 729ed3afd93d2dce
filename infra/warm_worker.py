"""A Prefect worker that runs registered jobs inside its own long-lived process.

A stock worker starts a process (and imports Python, Prefect and torch) for every flow run, and runs whatever command or
entrypoint the API hands it. This one runs only what the process registered under a flow's name; a pool, a deployment or
a flow run can say nothing about code, environment or command. It hears of a run by an event and falls back to polling.

It overrides `BaseWorker._submit_run` and `_emit_worker_started_event`, and uses `_submit_scheduled_flow_runs`,
`_release_limit_slot`, `_submitting_flow_run_ids` and `_has_successfully_synced`: private API of the pinned Prefect, held
to its word by tests/infra/test_prefect_contract.py.
"""

from __future__ import annotations

import logging
import time
import uuid
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from typing import Any

import anyio
import httpx
from anyio.abc import TaskGroup
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.events import Event
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.states import Failed
from prefect.types._datetime import now
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult

from fedround.errors import FedroundError
from infra.api_problems import is_away, is_login_refused
from infra.deploying import Change
from infra.holding import CHANGED, Holding
from infra.prefect_client import set_state
from infra.unreadable import CURE, sifted

_SILENT_S = 180.0
"""A worker that has not been heard of for so long is in trouble: it sends a sign of life twice a minute."""
_DELETED = "prefect.work-pool.deleted"
_PATIENCE_S = (0.02, 0.05, 0.1, 0.3, 1.0)
"""The pauses between the tries to read a run that was announced.

Prefect's server announces a run before the transaction that makes it has ended. With 12 sites we saw that 4 times in 1,100
runs; each of these would have waited for a poll.
"""


class NoVariables(BaseVariables):
    """A work pool sets nothing: nothing that it says can change what this process runs."""


class WarmWorker(BaseWorker[BaseJobConfiguration, NoVariables, BaseWorkerResult]):
    """Base of the site worker and the coordinator worker: one run at a time, in this process."""

    type = "fedround-warm"

    job_configuration = BaseJobConfiguration
    job_configuration_variables = NoVariables
    flow_names: frozenset[str] = frozenset()
    """The flows that this worker runs; a run of any other flow fails with a message."""
    held_with: tuple[str, ...] = ()
    """The flows whose paused deployment holds this pool's work, as a paused pool does."""

    def __init__(self, pool: str, name: str | None = None) -> None:
        super().__init__(pool, name=name or pool, limit=1, prefetch_seconds=0)
        self._names: dict[uuid.UUID, str] = {}
        self._heard_while_busy = False
        self._seen = time.monotonic()
        self._held: str | None = None
        self._served: uuid.UUID | None = None
        self._listening: anyio.CancelScope | None = None
        self._hears = False

    @cached_property
    def _holding(self) -> Holding:
        return Holding(self.client, self._work_pool_name, self.held_with)

    @classmethod
    def get_default_base_job_template(cls) -> dict[str, Any]:
        """An empty form: there is nothing to set, and the server has nothing to check for every run."""
        return {}

    async def setup(self) -> None:
        """Connect, make sure that no second worker serves this pool, and start listening."""
        await super().setup()
        await self._fail_what_hides_others([StateType.RUNNING, StateType.PENDING, StateType.CANCELLING])
        await self._close_runs_of_a_dead_predecessor()
        self._group.start_soon(self._listen)

    @property
    def _group(self) -> TaskGroup:
        """What runs beside the rest; it is there from `setup` on."""
        if self._runs_task_group is None:
            raise RuntimeError("the worker was not set up")
        return self._runs_task_group

    @abstractmethod
    async def perform(self, flow_run: FlowRun) -> None:
        """Run one flow run to its end, and report its final state."""

    @abstractmethod
    async def _close_runs_of_a_dead_predecessor(self) -> None: ...

    async def run(self, flow_run: FlowRun, configuration: Any, task_status: Any = None) -> BaseWorkerResult:
        """Never called: `_submit_run` does the work in this process."""
        raise NotImplementedError

    async def _emit_worker_started_event(self) -> None:
        """Nothing: nobody reads that event, and it would need a connection of its own, which a site's login may not open."""

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Poll. If the API is away, or answers what nobody understands, it is asked again for as long as that lasts.

        Prefect's own loop would end the worker after some minutes, or at the first run that is deleted while it is looked at,
        and then every site would need a person. Only a login that was taken back ends the process.
        """
        try:
            return await super().get_and_submit_flow_runs()
        except Exception as error:
            self._note(error)
            return []

    async def _get_scheduled_flow_runs(self) -> list[WorkerFlowRunResponse]:
        """Ask for what is due. A run that the server cannot show is failed, so that it hides no other."""
        try:
            return await super()._get_scheduled_flow_runs()
        except httpx.HTTPStatusError as error:
            if error.response.status_code != 500 or not await self._fail_what_hides_others([StateType.SCHEDULED]):
                raise
        return await super()._get_scheduled_flow_runs()

    async def _fail_what_hides_others(self, states: list[StateType]) -> bool:
        """Whether there were such runs in this pool, in these states."""
        left = await sifted(
            self.client, FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states))),
            pools=WorkPoolFilter(name=WorkPoolFilterName(any_=[self._work_pool_name])))
        for run in left.unreadable:
            self._logger.error("flow run %s cannot be shown by the Prefect server, and hides others from this pool and "
                               "from the page of runs; nothing was run, and it is failed now; %s %s", run, CURE, run)
            try:
                await set_state(self.client, run, Failed(message="the server cannot show it; nothing was run"), force=True)
            except httpx.HTTPStatusError as error:      # it may have left the pool meanwhile; the others go on
                self._log(f"flow run {run} could not be made Failed", error)
        return bool(left.unreadable)

    def trouble(self) -> str | None:
        """What is wrong with this process, if anything: the API has not taken a sign of life for long."""
        silent_s = time.monotonic() - self._seen
        return None if silent_s < _SILENT_S else f"the Prefect API has not answered for {silent_s:.0f} s"

    async def sync_with_backend(self) -> None:
        """Send a heartbeat, or try again next time."""
        try:
            await super().sync_with_backend()
            self._seen = time.monotonic()
            await self._notice_a_new_pool()
        except Exception as error:
            self._note(error)

    async def _notice_a_new_pool(self) -> None:
        """A pool that somebody deletes is made again by this worker. Its deployments have lost it, and our ear, too."""
        if self._work_pool is None or self._work_pool.id == self._served:
            return
        try:
            for change in await self._repair():
                if change.what:
                    self._logger.warning("%s: %s; repaired", change.of, change.what)
        except (httpx.HTTPError, PrefectException) as error:        # a login that may not: then 'fedround deploy' does it
            self._logger.warning("cannot repair the deployments (%s): run 'fedround deploy'", _named(error))
        self._served = self._work_pool.id
        self._holding.forget()
        if self._listening is not None:
            self._listening.cancel()

    @abstractmethod
    async def _repair(self) -> list[Change]:
        """Make what has been lost of the pool and its deployments."""

    def _note(self, error: Exception) -> None:
        """Log that the API does not answer, or not as it should. Raises the error if it takes our login no more."""
        if is_login_refused(error):
            raise error
        self._logger.warning("the Prefect API does not answer (%s); asking again", _named(error))

    def _begin(self, work: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Begin it beside the rest. What goes wrong in it is logged, and ends nothing else."""
        async def alone() -> None:
            try:
                await work(*arguments)
            except Exception as error:
                self._log(work.__name__, error)

        self._group.start_soon(alone)

    async def _every(self, pause_s: Callable[[], float], work: Callable[[], Awaitable[object]]) -> None:
        """Do it again and again, with such pauses, as long as the process lives. What goes wrong is logged."""
        while True:
            try:
                await work()
            except Exception as error:
                self._log(work.__name__, error)
            await anyio.sleep(pause_s())

    def _log(self, what: str, error: Exception) -> None:
        """Of an error of the API its name; of any other, which is a mistake of ours, where it was made."""
        is_of_api = isinstance(error, httpx.HTTPError | PrefectException)
        self._logger.log(logging.WARNING if is_of_api else logging.ERROR, "%s: %s", what.strip("_").replace("_", " "),
                         _named(error), exc_info=None if is_of_api else error)

    async def _is_held(self) -> bool:
        """Whether somebody has paused what is served here; it is said once. What waits begins when it is let go."""
        held = await self._holding.why()
        if held != self._held:
            self._logger.warning("%s", f"{held}: nothing is begun until that changes" if held else "work goes on")
        self._held = held
        return held is not None

    async def _submit_scheduled_flow_runs(self, flow_run_response: list[WorkerFlowRunResponse]) -> list[FlowRun]:
        """A poll respects a paused pool, but no paused deployment, and an event respects neither."""
        if flow_run_response and await self._is_held():
            return []
        return await super()._submit_scheduled_flow_runs(flow_run_response)

    async def _submit_run(self, flow_run: FlowRun) -> None:
        try:
            if await self._flow_name(flow_run.flow_id) in self.flow_names:
                await self.perform(flow_run)
            else:
                await set_state(self.client, flow_run.id, Failed(
                    message="this worker has not registered that flow; nothing was run"), force=True)
        except Exception as error:
            if is_away(error):
                self._logger.warning("run %s: the API went away (%s); the next poll finds it", flow_run.name, _named(error))
            else:
                await self._fail(flow_run, error)
        finally:
            self._release_limit_slot(flow_run.id)
            self._submitting_flow_run_ids.discard(flow_run.id)
        await self._go_on()

    async def _fail(self, flow_run: FlowRun, error: Exception) -> None:
        """What could not be carried out is Failed: left Scheduled, it would come back with every poll."""
        if isinstance(error, FedroundError):
            self._logger.error("run %s: %s", flow_run.name, error)      # the sentence says it all
        else:
            self._logger.error("run %s", flow_run.name, exc_info=error)
        try:
            if not await set_state(self.client, flow_run.id, Failed(message=f"not carried out ({type(error).__name__})"),
                                   force=True):
                self._logger.warning("run %s: somebody has deleted it", flow_run.name)
        except Exception as untold:
            self._log(f"run {flow_run.name} could not be made Failed", untold)

    async def _go_on(self) -> None:
        """Called when a run has ended."""
        if self._heard_while_busy:
            self._heard_while_busy = False
            await self.get_and_submit_flow_runs()

    async def _flow_name(self, flow_id: uuid.UUID) -> str:
        if flow_id not in self._names:
            self._names[flow_id] = (await self.client.read_flow(flow_id)).name
        return self._names[flow_id]

    async def _listen(self) -> None:
        """Wake up at once instead of at the next poll. Polling goes on, because events may be lost and runs may not."""
        while True:
            with anyio.CancelScope() as self._listening:
                try:
                    await self._listen_for(*self._wake_ups())
                except Exception as error:
                    self._logger.warning("event stream: %s; polling until it is back", _named(error))
                await anyio.sleep(5)

    async def _listen_for(self, names: list[str], resources: list[str]) -> None:
        wanted = EventFilter(event=EventNameFilter(name=names), any_resource=EventAnyResourceFilter(id=resources))
        self._holding.forget()
        async with get_events_subscriber(filter=wanted) as events:
            while not self._has_successfully_synced:      # until then Prefect's poll asks nothing
                await anyio.sleep(0.1)
            await self.get_and_submit_flow_runs()         # what was scheduled before we listened
            self._hears = True
            try:
                async for event in events:
                    try:
                        await self._hear(event)
                    except Exception as error:      # whoever holds the API's key can send any: others are still heard
                        self._log(f"event {event.event}", error)
            finally:
                self._hears = False

    def _wake_ups(self) -> tuple[list[str], list[str]]:
        """The names of events to listen for, and the resources that one of them is about."""
        return (["prefect.flow-run.Scheduled", "prefect.flow-run.Resuming", _DELETED, *CHANGED],
                [f"prefect.work-pool.{self.work_pool.id}"])

    async def _hear(self, event: Event) -> None:
        if event.event == _DELETED:
            await self.sync_with_backend()
            return
        if event.event in CHANGED:
            self._holding.forget()
            await self._go_on_if_let_go()
            return
        await self._submit_if_due(uuid.UUID(event.resource.id.removeprefix("prefect.flow-run.")), event.occurred)

    async def _go_on_if_let_go(self) -> None:
        """Take up what waited for the end of a pause."""
        if self._held is not None and not await self._is_held():
            await self.get_and_submit_flow_runs()

    async def _submit_if_due(self, run_id: uuid.UUID, announced: datetime) -> None:
        """Read one run, for a third of the cost of a poll, which also starts two bookkeeping jobs in the server.

        It is due by this machine's clock or by the server's, which `announced` it: so a site whose clock is slow is not late.
        """
        if self.limiter.borrowed_tokens > 0:
            self._heard_while_busy = True
            return
        try:
            run = await self._read(run_id)
        except httpx.HTTPStatusError:
            await self.get_and_submit_flow_runs()       # which finds out whether it is this run's fault
            return
        if run is None or run.state is None or not run.state.is_scheduled():
            return
        due = run.next_scheduled_start_time or run.expected_start_time
        if due is None or due <= max(now("UTC"), announced):
            await self._submit_scheduled_flow_runs([WorkerFlowRunResponse(
                work_pool_id=self.work_pool.id, work_queue_id=run.work_queue_id, flow_run=run)])

    async def _read(self, run_id: uuid.UUID) -> FlowRun | None:
        """A run that was announced. None if it cannot be read for a while: then a poll finds it, if it exists."""
        for pause_s in _PATIENCE_S:
            with suppress(ObjectNotFound):
                return await self.client.read_flow_run(run_id)
            await anyio.sleep(pause_s)
        return None


def _named(error: Exception) -> str:
    """Its kind, and what the API answered: never what it holds."""
    return (f"{type(error).__name__} {error.response.status_code}" if isinstance(error, httpx.HTTPStatusError) else
            type(error).__name__)
