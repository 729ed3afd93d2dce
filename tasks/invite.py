"""Invitations: one event for all sites, a flow run in every site's own pool, one shared poll, an end at the deadline.

In a campaign with one run per site, a task run within it takes the place of the flow run. The Prefect plane only signals. A
site's answer is what lies in the store under its signature.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from uuid import UUID

from prefect import get_client, runtime
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterIdempotencyKey,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    TaskRunFilter,
    TaskRunFilterId,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Cancelling, Completed

from fedround.errors import SetupError
from fedround.records import Plan
from infra.asking import ASKED, CAMPAIGN_FLOW, CLOSED, DEPLOYMENTS, ROUND_RUN, SITE_FLOW, Asked, task_run, tell
from infra.prefect_client import set_state
from infra.unreadable import CURE, sifted
from tasks.plan import Planned

log = logging.getLogger("fedround.coordinator")

TAKEN_S = 5.0
LOOK_S = 5.0
GRACE_S = 5.0
_OVER = "the campaign is over"
_OPEN = FlowRunFilterState(type=FlowRunFilterStateType(any_=[state for state in StateType if state not in TERMINAL_STATES]))


class InvitedRuns:
    """One plan, and the flow run in which every site answers it."""

    def __init__(self, asked: Asked, keys: dict[str, str], gone: Iterable[str] = ()):
        """gone: sites whose flow run for the campaign was cancelled."""
        self.asked = asked
        self._standing = {site: UUID(run) for site, run in asked.standing.items()}
        self._gone = frozenset(gone)
        self.runs = dict(self._standing)
        """The flow runs that are known, by site."""
        self._keys = keys
        self._taken_by = asyncio.get_running_loop().time() + TAKEN_S
        self._look_at_all = asyncio.get_running_loop().time() + LOOK_S

    @property
    def sites(self) -> frozenset[str]:
        """Who was invited."""
        return frozenset(self._keys)

    async def ended(self, client: PrefectClient, among: set[str]) -> set[str]:
        """The sites of `among` whose flow run, or task run, has ended, in whatever way. Only the ended runs travel. One that
        was cancelled or deleted answers nothing more, and nobody waits for it until the deadline.

        A site that has no flow run after some seconds has not heard of the plan: then one is scheduled, which waits for the
        site.
        """
        rounds, campaign = among - self._standing.keys(), (among & self._standing.keys()) - self._gone
        ended = among & self._gone
        if campaign:
            ended |= await self._ended_in_campaign(client, campaign)
        if rounds:
            if self._taken_by < asyncio.get_running_loop().time():
                self._taken_by = float("inf")
                await self._summon(client, rounds)
            ended |= set(await self._read(client, rounds, FlowRunFilterState(
                type=FlowRunFilterStateType(any_=sorted(TERMINAL_STATES)))))
        if (now := asyncio.get_running_loop().time()) >= self._look_at_all:
            self._look_at_all = now + LOOK_S
            ended |= await self._over(client, among - ended)
        return ended

    async def signs(self, client: PrefectClient, among: set[str]) -> dict[str, object]:
        """What changes whenever the work of a site moves: when its flow run was written last. Who has none is not named."""
        campaign, rounds = among & self._standing.keys(), among - self._standing.keys()
        found = await self._read(client, rounds) if rounds else {}
        if campaign:
            by_id = {run: site for site, run in self._standing.items() if site in campaign}
            found |= {by_id[run.id]: run for run in await _runs(client, FlowRunFilter(
                id=FlowRunFilterId(any_=sorted(by_id, key=str))))}
        return {site: run.updated for site, run in found.items()}

    async def close(self, client: PrefectClient, late: set[str]) -> None:
        """Ask late sites to stop, give them a moment, then write down that they did not answer in time."""
        waiting = late - await self.ended(client, late) if late else late
        await self.stop(client, waiting)
        end = asyncio.get_running_loop().time() + GRACE_S
        while waiting and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.5)
            waiting -= await self.ended(client, waiting)
        for site in sorted(waiting - self._standing.keys()):
            await set_state(client, self.runs[site], Cancelled(message="no answer; the round is closed"), force=True)

    async def stop(self, client: PrefectClient, sites: set[str]) -> None:
        """Ask these sites to stop, and wait for none of them."""
        if campaign := sites & self._standing.keys():
            await tell(client, CLOSED, self.asked, campaign)
        if rounds := sites - self._standing.keys():
            await self._summon(client, rounds)       # so that nobody begins afterwards
            for run in (await self._read(client, rounds)).values():
                if run.state is None or not run.state.is_final():
                    running = run.state is not None and run.state.is_running()
                    await set_state(client, run.id, Cancelling() if running else Cancelled(message="the round is closed"))

    async def _ended_in_campaign(self, client: PrefectClient, among: set[str]) -> set[str]:
        """Those whose task run has ended."""
        sites = {task_run(self._standing[site], self.asked.plan): site for site in among}
        done = await client.read_task_runs(task_run_filter=TaskRunFilter(
            id=TaskRunFilterId(any_=list(sites)),
            state=TaskRunFilterState(type=TaskRunFilterStateType(any_=sorted(TERMINAL_STATES)))))
        return {sites[run.id] for run in done}

    async def _over(self, client: PrefectClient, among: set[str]) -> set[str]:
        """Those whose flow run was known and is not open any more, or not there. As long as all are open, one number travels.
        An answer that is there is found all the same.
        """
        known = {self.runs[site]: site for site in among if site in self.runs}
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=sorted(known, key=str)), state=_OPEN)
        counted = await client.request("POST", "/flow_runs/count", json={"flow_runs": wanted.model_dump(
            mode="json", exclude_unset=True)})
        if counted.json() == len(known):
            return set()
        there = await sifted(client, wanted)
        return {known[run] for run in known.keys() - {run.id for run in there.runs} - set(there.unreadable)}

    async def _summon(self, client: PrefectClient, among: set[str]) -> None:
        """A scheduled flow run for everybody who has none. Raises SetupError for a site without a deployment."""
        for site in sorted(among - set(await self._read(client, among))):
            self.runs[site] = (await client.create_flow_run_from_deployment(
                await _deployment(client, SITE_FLOW, site), name=self.asked.name(site), idempotency_key=self._keys[site],
                tags=[self.asked.tag], labels={ROUND_RUN: self.asked.by}, parameters=self.asked.parameters)).id

    async def _read(self, client: PrefectClient, among: set[str], state: FlowRunFilterState | None = None
                    ) -> dict[str, FlowRun]:
        found = await _runs(client, FlowRunFilter(
            idempotency_key=FlowRunFilterIdempotencyKey(any_=[self._keys[site] for site in sorted(among)]), state=state))
        by_key = {run.idempotency_key: run for run in found}
        runs = {site: by_key[self._keys[site]] for site in among if self._keys[site] in by_key}
        self.runs |= {site: run.id for site, run in runs.items()}
        return runs


async def _runs(client: PrefectClient, wanted: FlowRunFilter, flows: FlowFilter | None = None) -> list[FlowRun]:
    """Those that the server can show. Somebody else's that it cannot stop no round."""
    found = await sifted(client, wanted, flows=flows)
    for run in found.unreadable:
        log.warning("flow run %s cannot be shown by the Prefect server, and counts for nothing; %s %s", run, CURE, run)
    return found.runs


def round_tag(plan: Plan) -> str:
    """The tag that ties the flow runs of one question together, in the UI and in filters."""
    return f"{plan.run}/{plan.asks.kind}-{plan.round:05d}" + (f"-{plan.attempt:02d}" if plan.attempt > 1 else "")


async def invite(planned: Planned, *, is_own: bool = True) -> InvitedRuns:
    """Ask every site of the cohort, in one event. A site with an open flow run for the plan is not asked again.

    A tag ties the round's own run and the sites' runs together, both ways. A subflow link would cost a dummy task run and an
    event per site.
    is_own: whether this flow run is the round's own. If not, it is the campaign's, and keeps its name.
    """
    plan, parent = planned.plan, runtime.flow_run.id
    tag = round_tag(plan)
    async with get_client() as client:
        if is_own:
            await client.update_flow_run(parent, name=tag, tags=[tag])
        # Runs of an earlier try at the same round: a coordinator that was killed, or a quorum that was missed.
        earlier = await _runs(client, FlowRunFilter(tags=FlowRunFilterTags(any_=[tag, campaign_tag(plan.run)])))
        everybody = (*plan.cohort, *invited_regions(plan))
        mine = {site: [run for run in earlier if run.name == f"{tag}/{site}"] for site in everybody}
        gone = {site: run for site, run in _given_up(earlier, plan.run, is_own=is_own).items() if site in plan.cohort}
        asked = Asked(
            tag=tag, by=str(parent), plan=planned.digest, tries={site: len(runs) for site, runs in mine.items() if runs},
            parameters=_parameters(plan),
            standing={site: str(run.id) for site, run in (_standing(earlier, plan.run) | gone).items()
                      if site in plan.cohort})
        await _forget_failed_tries(client, asked)
        found = {site: key for site, runs in mine.items() if (key := _open(runs)) is not None}
        await tell(client, ASKED, asked, [site for site in everybody if site not in found and site not in gone])
    return InvitedRuns(asked, {site: found.get(site, asked.key(site)) for site in everybody}, gone)


def invited_regions(plan: Plan) -> tuple[str, ...]:
    """The regions whose coordinators have work: they have pools and flow runs as sites have."""
    return tuple(one.name for one in plan.agreed.regions if one.asked(plan.cohort)) if plan.by_region else ()


async def invite_again(planned: Planned) -> tuple[InvitedRuns, ...]:
    """Those who still work on the plans of earlier rounds, by plan. Whose flow run has ended without an answer is asked once
    more.
    """
    groups: dict[str, list[str]] = {}
    for site, earlier in planned.earlier.items():
        groups.setdefault(earlier.digest, []).append(site)
    if not groups:
        return ()
    invitations = []
    async with get_client() as client:
        plans = [(planned.of(sites[0]).plan, named, sites) for named, sites in groups.items()]
        known = await _runs(client, FlowRunFilter(tags=FlowRunFilterTags(any_=[round_tag(plan) for plan, _, _ in plans])))
        for plan, named, sites in plans:
            tag = round_tag(plan)
            mine = {site: [run for run in known if run.name == f"{tag}/{site}"] for site in sites}
            asked = Asked(tag=tag, by=str(runtime.flow_run.id), plan=named, standing={},
                          tries={site: len(runs) for site, runs in mine.items() if runs}, parameters=_parameters(plan))
            found = {site: key for site, runs in mine.items() if (key := _open(runs)) is not None}
            if unheard := [site for site in sites if site not in found]:
                await tell(client, ASKED, asked, unheard)
            invitations.append(InvitedRuns(asked, {site: found.get(site, asked.key(site)) for site in sites}))
    return tuple(invitations)


def _parameters(plan: Plan) -> dict[str, str | int]:
    """What a site's flow run gets: which plan to look up."""
    return {"run": plan.run, "round": plan.round, "attempt": plan.attempt, "purpose": plan.asks.kind}


async def _forget_failed_tries(client: PrefectClient, asked: Asked) -> None:
    """Prepare a plan that is asked again after a missed quorum: delete task runs that ended without an answer."""
    if asked.standing:
        tries = await client.read_task_runs(task_run_filter=TaskRunFilter(id=TaskRunFilterId(
            any_=[task_run(UUID(run), asked.plan) for run in asked.standing.values()])))
        for run in tries:
            if run.state is None or not run.state.is_completed():
                with suppress(ObjectNotFound):
                    await client.delete_task_run(run.id)


def campaign_tag(run: str) -> str:
    """The tag of the flow runs that serve a whole campaign."""
    return f"{run}/campaign"


def _standing(runs: list[FlowRun], run: str) -> dict[str, FlowRun]:
    """The flow runs that serve the campaign, by site. If a site has several, the last one that was made counts."""
    tag = campaign_tag(run)
    mine = [found for found in runs if tag in found.tags and found.state is not None and not found.state.is_final()]
    return {found.name.removeprefix(f"{tag}/"): found for found in sorted(mine, key=lambda found: str(found.created))}


def _given_up(runs: list[FlowRun], run: str, *, is_own: bool) -> dict[str, FlowRun]:
    """The flow runs that somebody has cancelled in this campaign, by site.

    Such a site answers nothing more of it. It is not asked in a flow run of its own, as a site is that joined later.
    """
    tag = campaign_tag(run)
    newest = {found.name.removeprefix(f"{tag}/"): found for found in sorted(runs, key=lambda found: str(found.created))
              if tag in found.tags}
    cancelled = {site: found for site, found in newest.items() if found.state is not None and found.state.is_cancelled()}
    here = runtime.flow_run
    campaign = None if not cancelled else here.parent_flow_run_id if is_own else here.id
    return {site: found for site, found in cancelled.items() if campaign and found.labels.get(ROUND_RUN) == str(campaign)}


async def begin_campaign(run: str, sites: Iterable[str], rounds: int) -> None:
    """One flow run for every site, which serves the run up to this round. A run that is there already is found again.

    What another campaign left behind is closed.
    """
    parent, wanted = runtime.flow_run.id, {"run": run, "rounds": rounds}
    async with get_client() as client:
        found = await _runs(client, FlowRunFilter(state=_OPEN), FlowFilter(name=FlowFilterName(any_=[CAMPAIGN_FLOW])))
        standing = _standing([one for one in found if one.parameters == wanted], run)
        for left in found:
            if left.id not in {mine.id for mine in standing.values()}:
                await _stop(client, left)
        for site in sites:
            if site not in standing:
                await client.create_flow_run_from_deployment(
                    await _deployment(client, CAMPAIGN_FLOW, site), name=f"{campaign_tag(run)}/{site}",
                    tags=[campaign_tag(run)], labels={ROUND_RUN: str(parent)}, parameters=wanted)


async def end_campaign(run: str, *, done: bool) -> None:
    """End the sites' flow runs.

    done: the campaign has reached its end. If not, sites at work are asked to stop, and after a moment their runs are closed.
    """
    left = FlowRunFilter(tags=FlowRunFilterTags(all_=[campaign_tag(run)]), state=_OPEN)
    async with get_client() as client:
        for standing in await _runs(client, left):
            if done and standing.state is not None and standing.state.is_running():
                await set_state(client, standing.id, Completed(message=_OVER))
            else:
                await _stop(client, standing)
        end = asyncio.get_running_loop().time() + GRACE_S
        while (waiting := await _runs(client, left)) and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.5)
        for standing in waiting:
            await set_state(client, standing.id, Cancelled(message=_OVER), force=True)


async def _stop(client: PrefectClient, run: FlowRun) -> None:
    running = run.state is not None and run.state.is_running()
    await set_state(client, run.id, Cancelling() if running else Cancelled(message=_OVER))


def _open(runs: list[FlowRun]) -> str | None:
    """The key of a run that has not ended."""
    return next((run.idempotency_key for run in runs if run.state is not None and not run.state.is_final()), None)


async def _deployment(client: PrefectClient, flow: str, site: str) -> UUID:
    """Raises SetupError if there is none. It is read each time: one that was deleted and made again has another id."""
    try:
        return (await client.read_deployment_by_name(f"{flow}/{DEPLOYMENTS[flow].format(site=site)}")).id
    except ObjectNotFound:
        raise SetupError(f"site '{site}' has no deployment: run 'fedround deploy' after changing the members") from None
