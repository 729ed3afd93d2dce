"""Invitations: one flow run in every site's own pool, one shared poll, and an orderly end at the deadline.

The Prefect plane only signals. What a site answered is what lies in the store under its signature.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from prefect import get_client, runtime
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Cancelling

from fedround.errors import SetupError
from tasks.plan import Planned

SITE_FLOW = "site-round"
GRACE_S = 5.0


@dataclass(frozen=True)
class Invited:
    """The flow run of every invited site."""

    runs: Mapping[str, UUID]


def round_tag(planned: Planned) -> str:
    """The tag that ties the flow runs of one question together, in the UI and in filters."""
    plan = planned.plan
    return f"{plan.run}/{plan.asks.kind}-{plan.round:05d}" + (f"-{plan.attempt:02d}" if plan.attempt > 1 else "")


async def invite(planned: Planned) -> Invited:
    """Create, or find again, one flow run per site of the cohort. Raises SetupError for a site without a deployment.

    In sequence: the server answers in one thread anyway. A tag ties the round's own run and the sites' runs together,
    both ways; a subflow link would cost a dummy task run and an event per site.
    """
    plan, parent = planned.plan, runtime.flow_run.id
    async with get_client() as client:
        await client.update_flow_run(parent, name=round_tag(planned), tags=[round_tag(planned)])
        earlier = await _earlier_runs(client, planned)
        runs = {}
        for site in plan.cohort:
            mine = [run for run in earlier if run.name.endswith(f"/{site}")]
            open_ones = [run for run in mine if run.state is not None and not run.state.is_final()]
            runs[site] = open_ones[0].id if open_ones else (await client.create_flow_run_from_deployment(
                await _deployment(site), name=f"{round_tag(planned)}/{site}",
                idempotency_key=f"{planned.digest}/{site}/{len(mine)}",
                tags=[round_tag(planned)], labels={"fedround.round-run": str(parent)},
                parameters={"run": plan.run, "round": plan.round, "attempt": plan.attempt, "purpose": plan.asks.kind},
            )).id
    return Invited(runs)


async def finished(client: PrefectClient, invited: Invited, among: set[str]) -> set[str]:
    """The sites of `among` whose flow run has ended, however it ended. One request; only the ended runs travel."""
    runs = await client.read_flow_runs(flow_run_filter=FlowRunFilter(
        id=FlowRunFilterId(any_=[invited.runs[site] for site in sorted(among)]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=sorted(TERMINAL_STATES)))))
    ended = {run.id for run in runs}
    return {site for site in among if invited.runs[site] in ended}


async def close(client: PrefectClient, invited: Invited, late: set[str]) -> None:
    """Ask late sites to stop, give them a moment, then write down that they did not answer in time."""
    waiting = late - await finished(client, invited, late) if late else late
    for site in sorted(waiting):
        run = await client.read_flow_run(invited.runs[site])
        running = run.state is not None and run.state.is_running()
        await client.set_flow_run_state(run.id, Cancelling() if running else Cancelled(message="the round is closed"))
    end = asyncio.get_running_loop().time() + GRACE_S
    while waiting and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.5)
        waiting -= await finished(client, invited, waiting)
    for site in sorted(waiting):
        await client.set_flow_run_state(
            invited.runs[site], Cancelled(message="no answer; the round is closed"), force=True)


async def _earlier_runs(client: PrefectClient, planned: Planned) -> list[FlowRun]:
    """Runs of an earlier try at the same round: a coordinator that was killed, or a quorum that was missed."""
    return await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[round_tag(planned)])))


_deployments: dict[str, UUID] = {}


async def _deployment(site: str) -> UUID:
    """Read once per process: `run_deployment` would read it for every run."""
    if site not in _deployments:
        async with get_client() as client:
            try:
                _deployments[site] = (await client.read_deployment_by_name(f"{SITE_FLOW}/{site}")).id
            except ObjectNotFound:
                raise SetupError(f"site '{site}' has no deployment: run 'fedround deploy' after changing the members"
                                 ) from None
    return _deployments[site]
