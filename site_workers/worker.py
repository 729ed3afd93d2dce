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
from prefect.states import Cancelled, Completed, Failed, Running, Scheduled, to_state_create

from fedround.errors import FedroundError
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
    flow_names = frozenset({"site-round"})
    _display_name = "fedround site"
    _description = "Runs the site's own registered rounds inside its long-lived process; takes no code from the API."

    def __init__(self, site: str, job: Job):
        super().__init__(site)
        self._job = job
        self._running: tuple[uuid.UUID, threading.Event] | None = None
        self._claimant = f"site process {os.getpid()}"

    async def setup(self) -> None:
        """Connect and listen, also for cancellation."""
        await super().setup()
        self._runs_task_group.start_soon(self._watch_for_cancellation)
        self._runs_task_group.start_soon(self._watch_for_other_workers)

    async def perform(self, flow_run: FlowRun) -> None:
        """Claim the run, do the job in a thread, report."""
        if not await self._claim(flow_run):
            return
        stop = threading.Event()
        self._running = flow_run.id, stop
        try:
            outcome = await self._outcome(flow_run, stop)
        finally:
            self._running = None
        await self._report(flow_run, outcome)

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
