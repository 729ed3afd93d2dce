"""The site's Prefect worker: a real flow run in the site's own pool, written once where the work is short.

The flow engine makes about 18 calls per run. This worker asks whether somebody has the run already, works, and makes the
run in the state in which it ended; work that takes longer than a moment is Running meanwhile, and can be cancelled there.
Tracebacks, log lines and results stay at the site: a state's message is one of the fixed sentences below.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.to_thread
import httpx
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.events import Event
from prefect.states import Cancelled, Completed, Failed, Running, Scheduled, State, to_state_create
from prefect.types._datetime import now

from fedround.errors import ContractError, FedroundError
from fedround.values import parse
from infra.asking import ASKED, CAMPAIGN_FLOW, CLOSED, ROUND_RUN, SITE_FLOW, Asked, answered, resource
from infra.prefect_client import is_in, named
from infra.warm_worker import WarmWorker
from site_workers.campaign import CampaignRequest, Waiting
from site_workers.outcome import STOPPED, Ending, Outcome, failed

Job = Callable[[dict[str, Any], Callable[[], bool]], Outcome]
"""Gets the run's parameters and a `cancelled()` to look at between steps."""

_CANCELLING = "prefect.flow-run.Cancelling"
_STATES = {Ending.ANSWERED: Completed, Ending.STOPPED: Cancelled, Ending.FAILED: Failed}

SHOWN_AFTER_S = 1.5
"""Work that ends sooner has its flow run written once, in its final state: nobody could have stopped it."""
LOOK_S = 10.0
CANCELLATION_POLL_S = 2.0
REPORT_AGAIN_S = 2.0
OTHERS_POLL_S = 60.0


@dataclass
class _Work:
    """What a job does now."""

    flow_run: uuid.UUID | None
    """None until the run is shown."""
    plan: str | None
    """The plan's digest, if the flow run serves several plans."""
    name: str
    parameters: Mapping[str, Any]
    stop: threading.Event = field(default_factory=threading.Event)


class SiteWorker(WarmWorker):
    """Serves the pool named after the site."""

    type = "fedround-site"
    flow_names = frozenset({SITE_FLOW, CAMPAIGN_FLOW})
    _display_name = "fedround site"
    _description = "Runs the site's own registered rounds inside its long-lived process; takes no code from the API."

    def __init__(self, site: str, job: Job, newest_plan: Callable[[str], Waiting | None] = lambda run: None):
        super().__init__(site)
        self._job, self._newest_plan = job, newest_plan
        self._work: _Work | None = None
        self._campaigns: dict[uuid.UUID, str] = {}      # the flow runs that serve whole campaigns, and their runs
        self._last_plan: str | None = None
        self._last_words: dict[str, Any] = {}
        self._claimant = f"site process {os.getpid()}"
        self._asked_meanwhile: Asked | None = None
        self._flow: uuid.UUID | None = None

    async def setup(self) -> None:
        """Connect and listen, also for cancellation."""
        await super().setup()
        self._runs_task_group.start_soon(self._watch_for_cancellation)
        self._runs_task_group.start_soon(self._watch_for_other_workers)
        self._runs_task_group.start_soon(self._look_now_and_then)

    async def perform(self, flow_run: FlowRun) -> None:
        """Claim the run, do the job in a thread, report. A run for a whole campaign goes on after that."""
        campaign = await self._flow_name(flow_run.flow_id) == CAMPAIGN_FLOW
        run = parse(CampaignRequest, flow_run.parameters, "parameters of the flow run").run if campaign else None
        if not await self._claim(flow_run):
            return
        if run is None:
            await self._carry_out(flow_run)
        else:
            self._campaigns[flow_run.id] = run
            await self._look(flow_run.id)

    async def _carry_out(self, flow_run: FlowRun) -> None:
        outcome = await self._outcome(_Work(flow_run.id, None, flow_run.name, flow_run.parameters))
        await self._report(lambda: self.client.set_flow_run_state(
            flow_run.id, _STATES[outcome.ending](message=outcome.message)))

    # -- what the coordinator asks by an event -------------------------------------------------------------------------

    def _wake_ups(self) -> tuple[list[str], list[str]]:
        names, resources = super()._wake_ups()
        return [*names, _CANCELLING, ASKED, CLOSED], [*resources, resource(self._work_pool_name)]

    async def _hear(self, event: Event) -> None:
        if event.event == _CANCELLING:
            self._stop(uuid.UUID(event.resource.id.removeprefix("prefect.flow-run.")))
        elif event.event in (ASKED, CLOSED):
            try:
                asked = parse(Asked, event.payload, f"event '{event.event}'")
            except ContractError as error:
                self._logger.warning("%s", error)
            else:
                self._take(asked) if event.event == ASKED else self._close(asked)
        else:
            await super()._hear(event)

    def _stop(self, run_id: uuid.UUID) -> None:
        """Somebody wants the flow run to end."""
        if self._work is not None and self._work.flow_run == run_id:
            self._work.stop.set()
        elif run_id in self._campaigns:
            self._runs_task_group.start_soon(self._leave, run_id)

    def _close(self, asked: Asked) -> None:
        """The plan does not wait for answers any more."""
        if self._work is not None and self._work.plan == asked.plan:
            self._work.stop.set()
        if self._asked_meanwhile is not None and self._asked_meanwhile.plan == asked.plan:
            self._asked_meanwhile = None

    def _take(self, asked: Asked) -> None:
        """Begin, or remember what is asked until the run in progress has ended."""
        slot = object()
        try:
            self.limiter.acquire_on_behalf_of_nowait(slot)
        except anyio.WouldBlock:
            self._asked_meanwhile = asked
        else:
            self._runs_task_group.start_soon(self._answer, asked, slot)

    async def _answer(self, asked: Asked, slot: object) -> None:
        """Begin a flow run of our own and carry it out, or answer within the campaign's.

        If something goes wrong before the run has begun, the coordinator schedules one later.
        """
        try:
            if (standing := asked.standing.get(self._work_pool_name)) is not None:
                if uuid.UUID(standing) in self._campaigns:      # else we claim it soon, and look in the store then
                    await self._serve(uuid.UUID(standing), asked.plan, asked.tag, asked.parameters)
            elif not await self._is_known(asked):
                await self._work_and_show(asked)
            elif (flow_run := await self._begin(asked)) is not None:
                await self._carry_out(flow_run)
        except httpx.HTTPError as error:
            self._logger.warning("%s: the API went away (%s)", asked.tag, type(error).__name__)
        except Exception:
            self._logger.exception("%s", asked.tag)
        finally:
            self.limiter.release_on_behalf_of(slot)
        await self._go_on()

    async def _go_on(self) -> None:
        asked, self._asked_meanwhile = self._asked_meanwhile, None
        if asked is not None:
            self._take(asked)
        await super()._go_on()

    async def _is_known(self, asked: Asked) -> bool:
        """Whether there is a flow run for this request already: the coordinator has scheduled or closed it, or it is done."""
        counted = await self.client.request("POST", "/flow_runs/count", json={"flow_runs": {
            "idempotency_key": {"any_": [asked.key(self._work_pool_name)]}}})
        return bool(counted.json())

    async def _work_and_show(self, asked: Asked) -> None:
        """Work, then create the flow run in its final state. Work that takes longer is shown as Running until it ends."""
        work = _Work(None, None, asked.name(self._work_pool_name), asked.parameters)
        async with anyio.create_task_group() as group:
            group.start_soon(self._show, asked, work)
            outcome = await self._outcome(work)
            group.cancel_scope.cancel()
        await self._report(lambda: self._end(asked, work, _STATES[outcome.ending](message=outcome.message)))

    async def _show(self, asked: Asked, work: _Work) -> None:
        """After a moment, make the run Running. If somebody else has it, or has closed it, the work is stopped."""
        await anyio.sleep(SHOWN_AFTER_S)
        while True:
            try:
                flow_run = await self._begin(asked)
            except httpx.HTTPError as error:
                self._logger.warning("%s: cannot show the run (%s); trying again", work.name, type(error).__name__)
                await anyio.sleep(REPORT_AGAIN_S)
                continue
            if flow_run is None:
                work.stop.set()
            else:
                work.flow_run = flow_run.id
            return

    async def _end(self, asked: Asked, work: _Work, state: State[Any]) -> None:
        """Set the run to this state: the run that is shown; otherwise a new one, or the one that is ours to end."""
        flow_run = work.flow_run
        if flow_run is None:
            there = await self._make(asked, {"type": state.type.value, "name": state.name, "message": state.message})
            if self._is_mine(there) or (there.state is not None and there.state.is_scheduled()):
                flow_run = there.id
        if flow_run is not None:
            await self.client.set_flow_run_state(flow_run, state)

    async def _begin(self, asked: Asked) -> FlowRun | None:
        """A flow run in our pool that is Running from the start; None if it was begun, or ended, by somebody else."""
        flow_run = await self._make(asked, {
            "type": "RUNNING", "name": "Running", "message": f"claimed by {self._claimant}"})
        if flow_run.state is not None and flow_run.state.is_scheduled():               # the coordinator was quicker
            return flow_run if await self._claim(flow_run) else None
        return flow_run if self._is_mine(flow_run) else None

    async def _make(self, asked: Asked, state: dict[str, str | None]) -> FlowRun:
        """The flow run for this request: it is made in this state, or returned as it is."""
        site = self._work_pool_name
        made = await self.client.request("POST", "/flow_runs/", json={
            "flow_id": str(await self._flow_id()), "work_pool_name": site, "name": asked.name(site), "tags": [asked.tag],
            "labels": {ROUND_RUN: asked.by}, "idempotency_key": asked.key(site), "parameters": asked.parameters,
            "state": state})
        return FlowRun.model_validate(made.json())

    def _is_mine(self, flow_run: FlowRun) -> bool:
        state = flow_run.state
        return state is not None and state.is_running() and state.message == f"claimed by {self._claimant}"

    async def _flow_id(self) -> uuid.UUID:
        if self._flow is None:
            self._flow = await self.client.create_flow_from_name(SITE_FLOW)
        return self._flow

    # -- one flow run for a whole campaign -----------------------------------------------------------------------------

    async def _serve(self, flow_run: uuid.UUID, plan: str, name: str, parameters: Mapping[str, Any]) -> None:
        """Answer one plan within the campaign's flow run, if that still runs; a task run says how it ended."""
        if not await self._is_running(flow_run):
            await self._leave(flow_run)
            return
        began = now("UTC")
        outcome = await self._outcome(_Work(flow_run, plan, name, parameters))
        state = _STATES[outcome.ending](message=outcome.message)
        self._last_plan, self._last_words = plan, answered(flow_run, plan, name, began, state)
        await self._report(self._say)
        if outcome == STOPPED and not await self._is_running(flow_run):
            await self._leave(flow_run)

    async def _say(self) -> None:
        """Report how the last plan of a campaign ended. A second report changes nothing."""
        await self.client.request("POST", "/events", json=[self._last_words])

    async def _look(self, flow_run: uuid.UUID) -> None:
        """Answer the campaign's plan that waits in the store. If we have answered it, report that again."""
        try:
            waiting = await anyio.to_thread.run_sync(self._newest_plan, self._campaigns[flow_run])
        except FedroundError as error:
            self._logger.warning("%s", error)
            return
        if waiting is None:
            return
        if waiting.plan == self._last_plan:
            await self._say()
        else:
            request = waiting.request
            await self._serve(flow_run, waiting.plan, f"{request.run}/{request.purpose}-{request.round:05d}",
                              request.model_dump(mode="json"))

    async def _look_now_and_then(self) -> None:
        """Look in the store now and then, since events may be lost. A campaign that has ended, or was paused, is left."""
        while True:
            await anyio.sleep(LOOK_S)
            for flow_run in list(self._campaigns):
                slot = object()
                try:
                    self.limiter.acquire_on_behalf_of_nowait(slot)
                except anyio.WouldBlock:
                    continue
                try:
                    await (self._look(flow_run) if await self._is_running(flow_run) else self._leave(flow_run))
                except httpx.HTTPError as error:
                    self._logger.warning("cannot ask about the campaign: %s", type(error).__name__)
                finally:
                    self.limiter.release_on_behalf_of(slot)
                await self._go_on()

    async def _leave(self, flow_run: uuid.UUID) -> None:
        """Stop serving the campaign, and confirm it if somebody waits for that. A new schedule is claimed again."""
        self._campaigns.pop(flow_run, None)
        state = (await self.client.read_flow_run(flow_run)).state
        if state is not None and state.type == StateType.CANCELLING:
            await self.client.set_flow_run_state(flow_run, Cancelled(message=STOPPED.message))

    async def _is_running(self, flow_run: uuid.UUID) -> bool:
        return await is_in(self.client, flow_run, StateType.RUNNING)

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

    async def _outcome(self, work: _Work) -> Outcome:
        self._work = work
        try:
            return await anyio.to_thread.run_sync(self._job, dict(work.parameters), work.stop.is_set)
        except FedroundError as error:
            self._logger.error("%s: %s", work.name, error)      # the sentence stays at the site
            return failed(error)
        except Exception as error:
            self._logger.exception("%s", work.name)             # the traceback stays at the site
            return failed(error)
        finally:
            self._work = None

    async def _report(self, tell: Callable[[], Awaitable[object]]) -> None:
        """Report the outcome, also if the API is away for a while.

        The answer is in the store, but the coordinator asks the API which sites are done.
        """
        while True:
            try:
                await tell()
            except httpx.TransportError as error:
                self._note_absence(error)
                await anyio.sleep(REPORT_AGAIN_S)
            else:
                return

    async def _watch_for_cancellation(self) -> None:
        """While a job runs, ask every few seconds whether its flow run still runs. Ask nothing otherwise."""
        while True:
            await anyio.sleep(CANCELLATION_POLL_S)
            if (work := self._work) is None or work.flow_run is None:
                continue
            try:
                if not await self._is_running(work.flow_run):
                    work.stop.set()
            except Exception as error:
                self._logger.warning("cannot ask about cancellation: %s", type(error).__name__)

    async def _watch_for_other_workers(self) -> None:
        """Write to the site's log who else serves this pool.

        Such a worker runs on the machine, and as the user, that started it. It can take a round away, which then ends without
        an answer. It has no key of the site's, and gets nothing from it.
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
        """A killed process leaves its run Running for ever. The next process takes it up again.

        What was charged is not charged twice, and the same noise is drawn again. Work that never ends is ended by the
        coordinator's deadline.
        """
        left = await self.client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(
                type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.CANCELLING]))),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[self._work_pool_name])))
        for run in left:
            goes_on = run.state is not None and run.state.is_running()
            state = (Scheduled(message="the site's process ended; a new one goes on") if goes_on else
                     Cancelled(message="the site's process ended"))
            await self.client.set_flow_run_state(run.id, state, force=True)
