"""The site's Prefect worker: a real flow run in the site's own pool, written once where the work is short.

This worker asks whether somebody has the run already, works, and makes the run in the state in which it ended. Work that
takes longer than a moment is Running meanwhile, and can be cancelled there. Tracebacks, log lines and results stay at the
site: a state's message is one of the fixed sentences below.
"""

from __future__ import annotations

import math
import secrets
import threading
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import anyio
import anyio.to_thread
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.events import Event
from prefect.states import Cancelled, Completed, Failed
from prefect.types._datetime import now

from fedround.errors import ContractError, FedroundError
from fedround.values import parse
from infra.api_problems import is_away
from infra.asking import ASKED, CAMPAIGN_FLOW, CLOSED, SITE_FLOW, Asked, Ended, answered, resource
from infra.deploying import Change
from infra.prefect_client import is_in, named
from infra.warm_worker import WarmWorker
from site_workers.campaign import CampaignRequest, Waiting
from site_workers.deployments import POOL_TYPE, deploy_site
from site_workers.flow_runs import FlowRuns
from site_workers.outcome import STOPPED, Ending, Outcome, failed

Job = Callable[[dict[str, Any], Callable[[], bool]], Outcome]
"""Gets the run's parameters and a `cancelled()` to look at between steps."""

_CANCELLING = "prefect.flow-run.Cancelling"
_CHANGED = ("prefect.flow-run.Paused", "prefect.flow-run.Suspended", "prefect.flow-run.Cancelled")
"""Events after which a flow run may not run any more. Whether it does is then asked."""
_STATES = {Ending.ANSWERED: Completed, Ending.STOPPED: Cancelled, Ending.FAILED: Failed}

_BEYOND = "asked for a plan that is not of this campaign; nothing was done"
SHOWN_AFTER_S = 1.5
"""Work that ends sooner has its flow run written once, in its final state: nobody could have stopped it."""
LOOK_S = 10.0
CANCELLATION_POLL_S = 2.0
"""If no events are heard, it is asked so often whether the flow run still runs; else every LOOK_S. A hundred sites that ask
every two seconds are fifty requests a second.
"""
SIGN_S = 10.0
"""While work moves, its flow run is touched so often: the coordinator gives up whoever does not move (`idle_s`)."""
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
    moved: threading.Event = field(default_factory=threading.Event)
    """Since the last sign of it."""

    def cancelled(self) -> bool:
        """Whether to stop. The job looks between two steps, and for each piece of a file that travels; so whoever looks has
        moved.
        """
        self.moved.set()
        return self.stop.is_set()


class SiteWorker(WarmWorker):
    """Serves the pool named after the site."""

    type = POOL_TYPE
    flow_names = frozenset({SITE_FLOW, CAMPAIGN_FLOW})
    held_with = (SITE_FLOW, CAMPAIGN_FLOW)
    _display_name = "fedround site"
    _description = "Runs the site's own registered rounds inside its long-lived process; takes no code from the API."

    def __init__(self, site: str, job: Job, newest_plan: Callable[[str], Waiting | None] = lambda run: None,
                 name: str | None = None):
        super().__init__(site, name)
        self._job, self._newest_plan = job, newest_plan
        self._work: _Work | None = None
        self._campaigns: dict[uuid.UUID, CampaignRequest] = {}      # the flow runs that serve whole campaigns
        self._ran: dict[uuid.UUID, float] = {}          # when such a flow run was last known to run, by the loop's clock
        self._paused: set[uuid.UUID] = set()            # what somebody has paused in the middle of the work
        self._last_plan: str | None = None
        self._last_words: dict[str, Any] = {}
        self._asked_meanwhile: Asked | None = None
        self._others = ""                               # who else serves the pool

    @cached_property
    def _flow_runs(self) -> FlowRuns:
        return FlowRuns(self.client, self._work_pool_name, f"site process {secrets.token_hex(4)}")

    async def setup(self) -> None:
        """Connect and listen, also for cancellation."""
        await super().setup()
        for pause_s, work in ((self._ask_s, self._stop_unless_it_runs), (lambda: SIGN_S, self._give_sign),
                              (lambda: LOOK_S, self._look_after_all), (lambda: OTHERS_POLL_S, self._name_other_workers)):
            self._begin(self._every, pause_s, work)

    async def perform(self, flow_run: FlowRun) -> None:
        """Claim the run, do the job in a thread, report. A run for a whole campaign goes on after that."""
        is_campaign = await self._flow_name(flow_run.flow_id) == CAMPAIGN_FLOW
        campaign = parse(CampaignRequest, flow_run.parameters, "parameters of the flow run") if is_campaign else None
        if not await self._flow_runs.claim(flow_run):
            return
        if campaign is None:
            await self._carry_out(flow_run)
        else:
            self._campaigns[flow_run.id], self._ran[flow_run.id] = campaign, anyio.current_time()
            await self._look(flow_run.id)

    async def _carry_out(self, flow_run: FlowRun) -> None:
        outcome = await self._outcome(_Work(flow_run.id, None, flow_run.name, flow_run.parameters))
        state: State[Any] = _STATES[outcome.ending](message=outcome.message)
        await self._report(lambda: self._end(flow_run.id, state, is_stopped=outcome == STOPPED))

    async def _end(self, flow_run: uuid.UUID, state: State[Any], *, is_stopped: bool) -> None:
        if not await self._flow_runs.end(flow_run, state, is_stopped=is_stopped):
            self._paused.add(flow_run)

    # -- what the coordinator asks by an event -------------------------------------------------------------------------

    def _wake_ups(self) -> tuple[list[str], list[str]]:
        names, resources = super()._wake_ups()
        return [*names, _CANCELLING, *_CHANGED, ASKED, CLOSED], [*resources, resource(self._work_pool_name)]

    async def _hear(self, event: Event) -> None:
        if event.event == _CANCELLING:
            self._stop(uuid.UUID(event.resource.id.removeprefix("prefect.flow-run.")))
        elif event.event in _CHANGED:
            self._ran.pop(uuid.UUID(event.resource.id.removeprefix("prefect.flow-run.")), None)
            await self._stop_unless_it_runs()
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
            self._begin(self._leave, run_id)

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
            self._begin(self._answer, asked, slot)

    async def _answer(self, asked: Asked, slot: object) -> None:
        """Begin a flow run of our own and carry it out, or answer within the campaign's.

        If something goes wrong before the run has begun, or the site's work is held, the coordinator schedules one later.
        """
        try:
            if await self._is_held():
                pass
            elif (standing := asked.standing.get(self._work_pool_name)) is not None:
                if uuid.UUID(standing) in self._campaigns:      # else we claim it soon, and look in the store then
                    await self._serve(uuid.UUID(standing), asked.plan, asked.tag, asked.parameters)
            elif not await self._flow_runs.is_known(asked):
                await self._work_and_show(asked)
            elif (flow_run := await self._flow_runs.begin(asked)) is not None:
                await self._carry_out(flow_run)
        except Exception as error:
            self._log(asked.tag, error)
        finally:
            self.limiter.release_on_behalf_of(slot)
        await self._go_on()

    async def _go_on(self) -> None:
        asked, self._asked_meanwhile = self._asked_meanwhile, None
        if asked is not None:
            self._take(asked)
        await super()._go_on()

    async def _work_and_show(self, asked: Asked) -> None:
        """Work, then create the flow run in its final state. Work that takes longer is shown as Running until it ends."""
        work = _Work(None, None, asked.name(self._work_pool_name), asked.parameters)
        async with anyio.create_task_group() as group:
            group.start_soon(self._show, asked, work)
            outcome = await self._outcome(work)
            group.cancel_scope.cancel()
        state: State[Any] = _STATES[outcome.ending](message=outcome.message)
        await self._report(lambda: self._flow_runs.make_ended(asked, state) if work.flow_run is None else
                           self._end(work.flow_run, state, is_stopped=outcome == STOPPED))

    async def _show(self, asked: Asked, work: _Work) -> None:
        """After a moment, make the run Running. If somebody else has it, or has closed it, the work is stopped."""
        await anyio.sleep(SHOWN_AFTER_S)
        while True:
            try:
                flow_run = await self._flow_runs.begin(asked)
            except Exception as error:
                self._log(f"{work.name}: cannot show the run; trying again", error)
                await anyio.sleep(REPORT_AGAIN_S)
                continue
            if flow_run is None:
                work.stop.set()
            else:
                work.flow_run = flow_run.id
            return

    # -- one flow run for a whole campaign -----------------------------------------------------------------------------

    async def _serve(self, flow_run: uuid.UUID, plan: str, name: str, parameters: Mapping[str, Any]) -> None:
        """Answer one plan within the campaign's flow run, if that still runs; a task run says how it ended.

        A plan that is not of the campaign for which the flow run was made ends the flow run. It may have one of its own.
        """
        if not await self._still_runs(flow_run):
            await self._leave(flow_run)
            return
        if (campaign := self._campaigns.get(flow_run)) is None:         # left meanwhile
            return
        if not campaign.serves(parameters):
            self._logger.warning("%s: is not of the campaign that this flow run was made for; it is not answered, and the "
                                 "flow run ends", name)
            await self._report(lambda: self._flow_runs.end(flow_run, Failed(message=_BEYOND)))
            await self._leave(flow_run)
            return
        began = now("UTC")
        outcome = await self._outcome(_Work(flow_run, plan, name, parameters))
        if outcome == STOPPED and not await self._flow_runs.is_there(flow_run):
            await self._leave(flow_run)         # a report of it would hold up those of the other sites in the server
            return
        ended = Ended(type=_STATES[outcome.ending]().type.value,  # type: ignore[arg-type]  # one of three
                      message=outcome.message, began=began, at=now("UTC"))
        self._last_plan, self._last_words = plan, answered(flow_run, plan, name, ended)
        await self._report(self._say)
        if outcome == STOPPED and not await self._flow_runs.is_running(flow_run):
            await self._leave(flow_run)

    async def _still_runs(self, flow_run: uuid.UUID) -> bool:
        """Whether the campaign's flow run is Running. What was heard is good for some seconds: an event says that it changed,
        and while the work lasts it is asked anyway.
        """
        if anyio.current_time() - self._ran.get(flow_run, -math.inf) < LOOK_S:
            return True
        runs = await self._flow_runs.is_running(flow_run)
        if runs:
            self._ran[flow_run] = anyio.current_time()
        return runs

    async def _say(self) -> None:
        """Report how the last plan of a campaign ended. A second report changes nothing."""
        await self.client.request("POST", "/events", json=[self._last_words])

    async def _look(self, flow_run: uuid.UUID) -> None:
        """Answer the campaign's plan that waits in the store. If we have answered it, report that again."""
        try:
            waiting = await anyio.to_thread.run_sync(self._newest_plan, self._campaigns[flow_run].run)
        except FedroundError as error:
            self._logger.warning("%s", error)
            return
        if waiting is None or await self._is_held():
            return
        if waiting.plan == self._last_plan:
            await self._say()
        else:
            request = waiting.request
            await self._serve(flow_run, waiting.plan, f"{request.run}/{request.purpose}-{request.round:05d}",
                              request.model_dump(mode="json"))

    async def _look_after_all(self) -> None:
        """Look in the store, since events may be lost. A campaign that has ended, or was paused, is left."""
        for flow_run in [*self._campaigns, *self._paused]:
            slot = object()
            try:
                self.limiter.acquire_on_behalf_of_nowait(slot)
            except anyio.WouldBlock:
                continue
            try:
                await self._look_after(flow_run)
            except Exception as error:
                self._log("look after a campaign", error)
            finally:
                self.limiter.release_on_behalf_of(slot)
            await self._go_on()

    async def _look_after(self, flow_run: uuid.UUID) -> None:
        """A campaign, or a run that was paused and may have been resumed."""
        running = await self._flow_runs.is_running(flow_run)
        if flow_run in self._campaigns:
            self._ran[flow_run] = anyio.current_time() if running else -math.inf
            await (self._look(flow_run) if running else self._leave(flow_run))
        elif running:
            self._paused.discard(flow_run)
            await self._carry_out(await self.client.read_flow_run(flow_run))
        elif not await is_in(self.client, flow_run, StateType.PAUSED):
            self._paused.discard(flow_run)          # ended, or scheduled again

    async def _leave(self, flow_run: uuid.UUID) -> None:
        """Stop serving the campaign, and confirm it if somebody waits for that. A new schedule is claimed again."""
        self._campaigns.pop(flow_run, None)
        self._ran.pop(flow_run, None)
        await self._flow_runs.confirm_stopped(flow_run)

    # -- the work, and what is watched meanwhile -----------------------------------------------------------------------

    async def _outcome(self, work: _Work) -> Outcome:
        self._work = work
        try:
            return await anyio.to_thread.run_sync(self._job, dict(work.parameters), work.cancelled)
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
            except Exception as error:
                if not is_away(error):
                    raise
                self._note(error)
                await anyio.sleep(REPORT_AGAIN_S)
            else:
                return

    def _ask_s(self) -> float:
        return LOOK_S if self._hears else CANCELLATION_POLL_S

    async def _stop_unless_it_runs(self) -> None:
        """While a job runs, ask whether its flow run still runs. Ask nothing otherwise."""
        if (work := self._work) is None or work.flow_run is None:
            return
        if not await self._flow_runs.is_running(work.flow_run):
            work.stop.set()

    async def _give_sign(self) -> None:
        """While a job moves, touch its flow run. That it moves is all that is told: not how far it is."""
        if (work := self._work) is not None and work.flow_run is not None and work.moved.is_set():
            work.moved.clear()
            await self._flow_runs.touch(work.flow_run)

    async def _name_other_workers(self) -> None:
        """Write to the site's log who else serves this pool.

        Such a worker runs on the machine, and as the user, that started it. It can take a round away, which then ends without
        an answer. It has no key of the site's, and gets nothing from it.
        """
        others = named(await self.client.read_workers_for_work_pool(self._work_pool_name), self.name)
        if others not in ("", self._others):
            self._logger.warning("%s serves this site's pool, too, and can take rounds away: ask the coordinator who runs it",
                                 others)
        self._others = others

    async def _repair(self) -> list[Change]:
        return await deploy_site(self.client, self._work_pool_name, repair=True)

    async def _close_runs_of_a_dead_predecessor(self) -> None:
        await self._flow_runs.take_over()
