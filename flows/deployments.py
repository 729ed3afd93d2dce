"""What the Prefect server knows of a federation: pools and deployments without any code, and the schedule."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from prefect import Flow, get_client
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectAlreadyExists
from prefect.utilities.callables import parameter_schema
from prefect.workers.base import BaseWorker
from pydantic import ValidationError

from fedround.agreement import Federation
from fedround.errors import ContractError
from fedround.privacy.spec import NoPrivacy
from flows.coordinator_worker import FLOWS, CoordinatorWorker, pool_of
from flows.federated_round import federated_round
from flows.federated_training import federated_training
from infra.asking import CAMPAIGN_FLOW, SITE_FLOW
from site_workers.campaign import CampaignRequest
from site_workers.round import SiteRequest
from site_workers.worker import SiteWorker
from tasks.plan import NextRoundRequest, TrainingRequest


async def deploy(federation: Federation, *, cron: str | None = None, cron_run: str = "scheduled") -> list[str]:
    """Register the coordinator's and every site's pool and deployment; returns the deployments' names. Idempotent.

    cron: one more round of run `cron_run` at these times (UTC); None removes the schedule. If the federation tells rows
    apart: a whole campaign on the last partition that is complete then, in a run of its own.
    Raises ContractError, and changes nothing, for a schedule or a run that cannot be.
    """
    times = [] if cron is None else [(_schedule(cron), True)]
    due, request = scheduled(federation, cron_run) if times else (None, {})
    async with get_client() as client:
        pool = pool_of(federation.name)
        await _pool(client, pool, CoordinatorWorker)
        names = []
        for name, (flow, _) in FLOWS.items():
            schedules = times if flow is due else []
            await _deployment(
                client, name, federation.name, pool, parameter_schema(flow).model_dump(), schedules,
                description=flow.description or "", parameters={"request": request} if schedules else {})
            names.append(f"{name}/{federation.name}")
        names += [await deploy_site(client, site.name) for site in federation.sites]
    return names


async def deploy_site(client: PrefectClient, site: str) -> str:
    """Register one site's pool and deployments, and nothing else; returns the rounds' deployment. Idempotent."""
    await _pool(client, site, SiteWorker)
    await _deployment(client, CAMPAIGN_FLOW, site, site, CampaignRequest.model_json_schema(), [],
                      description="All rounds of one campaign at this site. Started by the coordinator; carries no code.")
    await _deployment(client, SITE_FLOW, site, site, SiteRequest.model_json_schema(), [],
                      description="One round at this site. Started by the coordinator; carries no code.")
    return f"{SITE_FLOW}/{site}"


def _schedule(cron: str) -> CronSchedule:
    try:
        return CronSchedule(cron=cron, timezone="UTC")
    except ValidationError:
        raise ContractError("--cron is not a schedule: expected five fields, for example '0 3 * * 1'") from None


def scheduled(federation: Federation, run: str) -> tuple[Flow[Any, Any], dict[str, Any]]:
    """The flow of the scheduled times, and what it is asked for. Raises ContractError if there can be none."""
    how, privacy = federation.partitions, federation.privacy
    if how is not None and how.by == "value":
        raise ContractError("partitions by value have no order, so no schedule can choose one: ask for each campaign with "
                            "'fedround train run --partition'")
    try:
        if how is None:
            return federated_round, NextRoundRequest(run=run).model_dump(exclude_none=True)
        asked = TrainingRequest(run=run, one_run_per_partition=True,
                                **{} if isinstance(privacy, NoPrivacy) else {"rounds": privacy.rounds})
        return federated_training, asked.model_dump(exclude_none=True)
    except ValidationError:
        raise ContractError("--run is not the name of a run: lower-case letters, digits and inner hyphens") from None


async def _pool(client: PrefectClient, name: str, worker: type[BaseWorker[Any, Any, Any]]) -> None:
    with suppress(ObjectAlreadyExists):
        await client.create_work_pool(WorkPoolCreate(
            name=name, type=worker.type, base_job_template=worker.get_default_base_job_template()))


async def _deployment(client: PrefectClient, flow: str, name: str, pool: str, schema: dict[str, Any],
                      schedules: Sequence[tuple[CronSchedule, bool]], description: str,
                      parameters: dict[str, Any] | None = None) -> None:
    """The server never learns where any code is: no path, no entrypoint, no command."""
    deployment = await client.create_deployment(
        await client.create_flow_from_name(flow), name=name, work_pool_name=pool, description=description,
        parameter_openapi_schema=schema, enforce_parameter_schema=True, parameters=parameters, tags=["fedround"])
    for schedule in await client.read_deployment_schedules(deployment):
        await client.delete_deployment_schedule(deployment, schedule.id)
    if schedules:
        await client.create_deployment_schedules(deployment, list(schedules))
