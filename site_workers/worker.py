"""The site's Prefect worker: a real flow run in the site's own pool, in two API calls.

The flow engine makes about 18 calls per run; this worker claims the run (Scheduled → Running) and reports its outcome.
Tracebacks, log lines and results stay at the site: a state's message is one of the fixed sentences below.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import httpx
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.events import Event
from prefect.states import Cancelled, Completed, Failed, Running, Scheduled, to_state_create

from fedround.errors import ContractError, FedroundError
from fedround.values import parse
from infra.asking import ASKED, ROUND_RUN, SITE_FLOW, Asked, resource
from infra.prefect_client import named
from infra.warm_worker import WarmWorker
from site_workers.outcome import Ending, Outcome, failed

Job = Callable[[dict[str, Any], Callable[[], bool]], Outcome]
"""Gets the run's parameters and a `cancelled()` to look at between steps."""

_STATES = {Ending.ANSWERED: Completed, Ending.STOPPED: Cancelled, Ending.FAILED: Failed}

CANCELLATION_POLL_S = 2.0
REPORT_AGAIN_S = 2.0
OTHERS_POLL_S = 60.0


class SiteWorker(WarmWorker):
    """Serves the pool named after the site."""

    type = "fedround-site"
    flow_names = frozenset({SITE_FLOW})
    _display_name = "fedround site"
    _description = "Runs the site's own registered rounds inside its long-lived process; takes no code from the API."

    def __init__(self, site: str, job: Job):
        super().__init__(site)
        self._job = job
        self._running: tuple[uuid.UUID, threading.Event] | None = None
        self._claimant = f"site process {os.getpid()}"
        self._asked_meanwhile: Asked | None = None
        self._flow: uuid.UUID | None = None

    async def setup(self) -> None:
        """Connect and listen, also for cancellation."""
        await super().setup()
        self._runs_task_group.start_soon(self._watch_for_cancellation)
        self._runs_task_group.start_soon(self._watch_for_other_workers)

    async def perform(self, flow_run: FlowRun) -> None:
        """Claim the run, do the job in a thread, report."""
        if await self._claim(flow_run):
            await self._carry_out(flow_run)

    async def _carry_out(self, flow_run: FlowRun) -> None:
        stop = threading.Event()
        self._running = flow_run.id, stop
        try:
            outcome = await self._outcome(flow_run, stop)
        finally:
            self._running = None
        await self._report(flow_run, outcome)

    # -- what the coordinator asks by an event -------------------------------------------------------------------------

    def _wake_ups(self) -> tuple[list[str], list[str]]:
        names, resources = super()._wake_ups()
        return [*names, ASKED], [*resources, resource(self._work_pool_name)]

    async def _hear(self, event: Event) -> None:
        if event.event != ASKED:
            await super()._hear(event)
            return
        try:
            self._take(parse(Asked, event.payload, "event 'asked'"))
        except ContractError as error:
            self._logger.warning("%s", error)

    def _take(self, asked: Asked) -> None:
        """Begin, or remember what is asked until the run in progress has ended."""
        try:
            self.limiter.acquire_on_behalf_of_nowait(asked.plan)
        except anyio.WouldBlock:
            self._asked_meanwhile = asked
        else:
            self._runs_task_group.start_soon(self._answer, asked)

    async def _answer(self, asked: Asked) -> None:
        """Begin a flow run of our own and carry it out. What goes wrong before it has begun is left to the coordinator,
        who then schedules one.
        """
        try:
            if (flow_run := await self._begin(asked)) is not None:
                await self._carry_out(flow_run)
        except httpx.HTTPError as error:
            self._logger.warning("%s: the API went away (%s)", asked.tag, type(error).__name__)
        except Exception:
            self._logger.exception("%s", asked.tag)
        finally:
            self.limiter.release_on_behalf_of(asked.plan)
        await self._go_on()

    async def _go_on(self) -> None:
        asked, self._asked_meanwhile = self._asked_meanwhile, None
        if asked is not None:
            self._take(asked)
        await super()._go_on()

    async def _begin(self, asked: Asked) -> FlowRun | None:
        """A flow run in our pool that is Running from the start; None if it was begun, or ended, by somebody else."""
        site = self._work_pool_name
        made = await self.client.request("POST", "/flow_runs/", json={
            "flow_id": str(await self._flow_id()), "work_pool_name": site, "name": asked.name(site), "tags": [asked.tag],
            "labels": {ROUND_RUN: asked.by}, "idempotency_key": asked.key(site), "parameters": asked.parameters,
            "state": {"type": "RUNNING", "name": "Running", "message": f"claimed by {self._claimant}"}})
        flow_run = FlowRun.model_validate(made.json())
        if flow_run.state is None:
            return None
        if flow_run.state.is_scheduled():               # the coordinator was quicker
            return flow_run if await self._claim(flow_run) else None
        mine = flow_run.state.is_running() and flow_run.state.message == f"claimed by {self._claimant}"
        return flow_run if mine else None

    async def _flow_id(self) -> uuid.UUID:
        if self._flow is None:
            self._flow = await self.client.create_flow_from_name(SITE_FLOW)
        return self._flow

    # -- flow runs -----------------------------------------------------------------------------------------------------

    async def _claim(self, flow_run: FlowRun) -> bool:
        """Take the run, or learn that somebody else has it.

        The server refuses a transition whose id equals the current state's. An id derived from the run makes one call
        both the lease and the start: of two claimants, one is rejected. (Random ids would let both into Running.)
        """
        state = to_state_create(Running(message=f"claimed by {self._claimant}"))
        state.state_details.flow_run_id = flow_run.id
        state.state_details.transition_id = uuid.uuid5(flow_run.id, f"claim after {flow_run.run_count} attempts")
        answer = (await self.client.request(
            "POST", "/flow_runs/{id}/set_state", path_params={"id": flow_run.id},
            json={"state": state.model_dump(mode="json"), "force": False},
        )).json()
        if answer["status"] == "ACCEPT":
            return True
        # A rejected claim in our own name is our own first request, whose answer was lost.
        current = answer.get("state") or {}
        return bool(current.get("type") == "RUNNING" and current.get("message") == state.message)

    async def _outcome(self, flow_run: FlowRun, stop: threading.Event) -> Outcome:
        try:
            return await anyio.to_thread.run_sync(self._job, flow_run.parameters, stop.is_set)
        except FedroundError as error:
            self._logger.error("%s: %s", flow_run.name, error)      # the sentence stays at the site
            return failed(error)
        except Exception as error:
            self._logger.exception("%s", flow_run.name)             # the traceback stays at the site
            return failed(error)

    async def _report(self, flow_run: FlowRun, outcome: Outcome) -> None:
        """Tell the outcome, also if the API is away for a while: the answer is in the store, but the coordinator asks
        the API who is done.
        """
        while True:
            try:
                await self.client.set_flow_run_state(flow_run.id, _STATES[outcome.ending](message=outcome.message))
            except httpx.TransportError as error:
                self._note_absence(error)
                await anyio.sleep(REPORT_AGAIN_S)
            else:
                return

    async def _watch_for_cancellation(self) -> None:
        """While a job runs, ask every few seconds whether somebody wants it stopped; otherwise ask nothing."""
        stopping = FlowRunFilterState(type=FlowRunFilterStateType(
            any_=[StateType.CANCELLING, StateType.CANCELLED, StateType.CRASHED]))
        while True:
            await anyio.sleep(CANCELLATION_POLL_S)
            if self._running is None:
                continue
            run_id, stop = self._running
            try:
                if await self.client.read_flow_runs(flow_run_filter=FlowRunFilter(
                        id=FlowRunFilterId(any_=[run_id]), state=stopping)):
                    stop.set()
            except Exception as error:
                self._logger.warning("cannot ask about cancellation: %s", type(error).__name__)

    async def _watch_for_other_workers(self) -> None:
        """Say in the site's log who else serves this pool. Such a worker runs where, and as whom, somebody started it: it can
        take a round away, which then ends without an answer. It has no key of the site's, and gets nothing from it.
        """
        known = ""
        while True:
            try:
                others = named(await self.client.read_workers_for_work_pool(self._work_pool_name), self._work_pool_name)
                if others not in ("", known):
                    self._logger.warning("%s serves this site's pool, too, and can take rounds away: ask the coordinator who "
                                         "runs it", others)
                known = others
            except Exception as error:
                self._logger.info("cannot ask who serves the pool: %s", type(error).__name__)
            await anyio.sleep(OTHERS_POLL_S)

    async def _close_runs_of_a_dead_predecessor(self) -> None:
        """A killed process leaves its run Running for ever. Its successor takes it up again: what was charged is not
        charged twice, and what was drawn is drawn again. The coordinator's deadline ends what never ends.
        """
        running = await self.client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING]))),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[self._work_pool_name])))
        for run in running:
            await self.client.set_flow_run_state(
                run.id, Scheduled(message="the site's process ended; a new one goes on"), force=True)
