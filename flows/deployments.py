"""What the Prefect server knows of a federation: pools and deployments without any code, and the schedule."""

from __future__ import annotations

from prefect import get_client
from prefect.client.orchestration import PrefectClient

from fedround.federation import Federation
from flows.coordinator_worker import FLOWS, CoordinatorWorker
from flows.deployment_names import name_of
from flows.forms import form, purpose
from flows.schedule import Schedule, reschedule
from infra import deploying
from infra.deploying import Change, Wanted
from site_workers.deployments import deploy_site


async def deploy(federation: Federation, schedule: Schedule | None = None, *, keep: bool = True, dry: bool = False
                 ) -> list[Change]:
    """Register the coordinator's and every site's pool and deployments; returns what was changed of each. Idempotent.

    schedule: a new one. None: it stays as it is (keep), or there is to be none. What people have set in the UI stays: pauses,
    limits. dry: change nothing. Raises ContractError, and changes nothing, for a schedule or a run that cannot be.
    """
    asked = None if schedule is None else schedule.asked(federation)
    async with get_client() as client:
        changes = await deploy_coordinator(client, federation, dry=dry)
        for other in federation.coordinators:
            if other.key != federation.coordinator:
                changes += await deploy_coordinator(client, federation, federation.served_by(other.name), dry=dry)
        if asked is not None or not keep:
            changes.append(await reschedule(client, federation, asked, dry=dry))
        for site in federation.sites:
            changes += await deploy_site(client, site.name, dry=dry)
        for region in federation.regions:
            changes += await deploy_site(client, region.name, dry=dry)
        return changes


async def deploy_coordinator(client: PrefectClient, federation: Federation, served: str | None = None, *,
                             dry: bool = False, repair: bool = False) -> list[Change]:
    """Register a coordinator's pool and its deployments, and leave their schedules as they are.

    served: what these are named after; None: the federation. dry: only say what would change. repair: only what is lost.
    """
    served = served or federation.name
    pool = f"{served}-coordinator"
    return [await deploying.pool(client, pool, CoordinatorWorker.type, dry=dry), *[
        await deploying.deployment(client, Wanted(
            name, name_of(name, served), pool, purpose(flow, federation), form(flow, federation)),
            dry=dry, repair=repair)
        for name, (flow, _) in FLOWS.items()]]
