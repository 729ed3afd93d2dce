"""Invitations: one event for all sites, one flow run in every site's own pool, one shared poll, and an orderly end at the
deadline.

The Prefect plane only signals. What a site answered is what lies in the store under its signature.
"""

from __future__ import annotations

import asyncio
from uuid import UUID

from prefect import get_client, runtime
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterIdempotencyKey,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Cancelling

from fedround.errors import SetupError
from infra.asking import ROUND_RUN, SITE_FLOW, Asked, ask
from tasks.plan import Planned

TAKEN_S = 3.0
GRACE_S = 5.0


class Invitation:
    """One plan, and the flow run in which every site answers it."""

    def __init__(self, asked: Asked, keys: dict[str, str]):
        self.asked = asked
        self.runs: dict[str, UUID] = {}
        """The flow runs that are known, by site."""
        self._keys = keys
        self._taken_by = asyncio.get_running_loop().time() + TAKEN_S

    async def ended(self, client: PrefectClient, among: set[str]) -> set[str]:
        """The sites of `among` whose flow run has ended, however it ended. One request; only the ended runs travel.

        Who has no flow run after some seconds has not heard of the plan: a scheduled one then waits for him.
        """
        if self._taken_by < asyncio.get_running_loop().time():
            self._taken_by = float("inf")
            await self._summon(client, among)
        return set(await self._read(client, among, FlowRunFilterState(
            type=FlowRunFilterStateType(any_=sorted(TERMINAL_STATES)))))

    async def close(self, client: PrefectClient, late: set[str]) -> None:
        """Ask late sites to stop, give them a moment, then write down that they did not answer in time."""
        waiting = late - await self.ended(client, late) if late else late
        if waiting:
            await self._summon(client, waiting)      # so that nobody begins afterwards
        for run in (await self._read(client, waiting)).values() if waiting else ():
            running = run.state is not None and run.state.is_running()
            await client.set_flow_run_state(run.id, Cancelling() if running else Cancelled(message="the round is closed"))
        end = asyncio.get_running_loop().time() + GRACE_S
        while waiting and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.5)
            waiting -= await self.ended(client, waiting)
        for site in sorted(waiting):
            await client.set_flow_run_state(
                self.runs[site], Cancelled(message="no answer; the round is closed"), force=True)

    async def _summon(self, client: PrefectClient, among: set[str]) -> None:
        """A scheduled flow run for everybody who has none. Raises SetupError for a site without a deployment."""
        for site in sorted(among - set(await self._read(client, among))):
            self.runs[site] = (await client.create_flow_run_from_deployment(
                await _deployment(client, site), name=self.asked.name(site), idempotency_key=self._keys[site],
                tags=[self.asked.tag], labels={ROUND_RUN: self.asked.by}, parameters=self.asked.parameters)).id

    async def _read(self, client: PrefectClient, among: set[str], state: FlowRunFilterState | None = None
                    ) -> dict[str, FlowRun]:
        found = await client.read_flow_runs(flow_run_filter=FlowRunFilter(
            idempotency_key=FlowRunFilterIdempotencyKey(any_=[self._keys[site] for site in sorted(among)]), state=state))
        by_key = {run.idempotency_key: run for run in found}
        runs = {site: by_key[self._keys[site]] for site in among if self._keys[site] in by_key}
        self.runs |= {site: run.id for site, run in runs.items()}
        return runs


async def invite(planned: Planned) -> Invitation:
    """Ask every site of the cohort, in one event; who has an open flow run for the plan already is not asked again.

    A tag ties the round's own run and the sites' runs together, both ways; a subflow link would cost a dummy task run and
    an event per site.
    """
    plan, parent = planned.plan, runtime.flow_run.id
    tag = f"{plan.run}/{plan.purpose}-{plan.round:05d}"
    async with get_client() as client:
        await client.update_flow_run(parent, name=tag, tags=[tag])
        # Runs of an earlier try at the same round: a coordinator that was killed, or a quorum that was missed.
        earlier = await client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[tag])))
        mine = {site: [run for run in earlier if run.name == f"{tag}/{site}"] for site in plan.cohort}
        asked = Asked(
            tag=tag, by=str(parent), plan=planned.digest, tries={site: len(runs) for site, runs in mine.items() if runs},
            parameters={"run": plan.run, "round": plan.round, "attempt": plan.attempt, "purpose": str(plan.purpose)})
        standing = {site: key for site, runs in mine.items() if (key := _open(runs)) is not None}
        await ask(client, asked, [site for site in plan.cohort if site not in standing])
    return Invitation(asked, {site: standing.get(site, asked.key(site)) for site in plan.cohort})


def _open(runs: list[FlowRun]) -> str | None:
    """The key of a run that has not ended."""
    return next((run.idempotency_key for run in runs if run.state is not None and not run.state.is_final()), None)


_deployments: dict[str, UUID] = {}


async def _deployment(client: PrefectClient, site: str) -> UUID:
    """Read once per process: `run_deployment` would read it for every run."""
    if site not in _deployments:
        try:
            _deployments[site] = (await client.read_deployment_by_name(f"{SITE_FLOW}/{site}")).id
        except ObjectNotFound:
            raise SetupError(f"site '{site}' has no deployment: run 'fedround deploy' after changing the members"
                             ) from None
    return _deployments[site]
