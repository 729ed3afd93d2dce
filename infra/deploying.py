"""Pools and deployments in the Prefect server: made, or brought to what they should be. What people have set there stays.

That is every pause, limit, schedule, default parameter and tag. The server never learns where any code is: no path, no
entrypoint, no command.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

TAG = "fedround"


@dataclass(frozen=True)
class Wanted:
    """A deployment as it should be."""

    flow: str
    name: str
    pool: str
    description: str
    form: dict[str, Any]
    """The JSON schema of its parameters."""

    @property
    def full_name(self) -> str:
        """As the API finds it."""
        return f"{self.flow}/{self.name}"


@dataclass(frozen=True)
class Change:
    """What is done, or would be done, to a pool or a deployment."""

    of: str
    what: str
    """Empty: nothing."""


async def pool(client: PrefectClient, name: str, kind: str, *, dry: bool = False) -> Change:
    """Make the pool if there is none. It sets nothing, so nothing of it is ever changed."""
    with suppress(ObjectNotFound):
        await client.read_work_pool(name)
        return Change(f"pool {name}", "")
    if not dry:
        with suppress(ObjectAlreadyExists):
            await client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template={}))
    return Change(f"pool {name}", "new")


async def deployment(client: PrefectClient, wanted: Wanted, *, dry: bool = False, repair: bool = False) -> Change:
    """Make the deployment, or change what is not as it should be.

    dry: only say what would change. repair: only what is lost, and no form of another version.
    """
    found = await existing(client, wanted.full_name)
    if found is None:
        if not dry:
            await client.create_deployment(
                await client.create_flow_from_name(wanted.flow), name=wanted.name, work_pool_name=wanted.pool,
                description=wanted.description, parameter_openapi_schema=wanted.form, enforce_parameter_schema=True,
                tags=[TAG])
        return Change(wanted.full_name, "new")
    differs = _differences(found, wanted)
    if repair:
        differs = {key: value for key, value in differs.items() if key == "work_pool_name" and found.work_pool_name is None}
    if differs and not dry:
        await client.update_deployment(found.id, DeploymentUpdate.model_validate(
            {key: value for key, (value, _) in differs.items()} | {"tags": found.tags}))
    return Change(wanted.full_name, ", ".join(words for _, words in differs.values()))


async def existing(client: PrefectClient, full_name: str) -> DeploymentResponse | None:
    """The deployment as it is, if there is one."""
    try:
        return await client.read_deployment_by_name(full_name)
    except ObjectNotFound:
        return None


def _differences(found: DeploymentResponse, wanted: Wanted) -> dict[str, tuple[Any, str]]:
    """By the field that is to be sent: its value, and what a person reads."""
    differs: dict[str, tuple[Any, str]] = {}
    if found.work_pool_name != wanted.pool:
        was = f"its pool was {found.work_pool_name}" if found.work_pool_name else "it had lost its pool"
        differs["work_pool_name"] = wanted.pool, was
    if found.parameter_openapi_schema != wanted.form:
        differs["parameter_openapi_schema"] = wanted.form, "another form"
    if found.description != wanted.description:
        differs["description"] = wanted.description, "another description"
    if not found.enforce_parameter_schema:
        differs["enforce_parameter_schema"] = True, "its form was not enforced"
    return differs
