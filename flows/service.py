"""The life of the coordinator's process, and how commands ask it for rounds."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedround.errors import ContractError, SetupError
from infra import health
from infra.prefect_client import is_in, set_state, use_api
from infra.serving import served_alone
from infra.settings import CoordinatorSettings, load_federation, load_toml
from tasks.coordinator import FOLDER_VARIABLE, Coordinator, open_coordinator
from tasks.health import coordinator_numbers

if TYPE_CHECKING:
    from uuid import UUID

    from flows.members import Member
    from infra.deploying import Change


def enter(folder: Path) -> Coordinator:
    """Open the coordinator's folder and point this process at its API. Call before Prefect is imported."""
    folder = folder.resolve()
    if not folder.is_dir():
        raise SetupError(f"no coordinator's folder at {folder}: name it with --coordinator, or make one with "
                         "'fedround federation init'")
    use_api(load_toml(CoordinatorSettings, folder / "coordinator.toml").api_url, folder)
    os.environ[FOLDER_VARIABLE] = str(folder)
    return open_coordinator(folder)


def serve_coordinator(folder: Path) -> None:
    """Serve the coordinator's pool until SIGTERM or SIGINT.

    Raises SetupError if another process serves the folder, StoreError if the store ignores conditional writes.
    """
    coordinator = enter(folder)
    with served_alone(coordinator.folder):
        from infra.stores import require_conditional_writes

        require_conditional_writes(coordinator.store, "probes")
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ |= {"PREFECT_LOGGING_TO_API_ENABLED": "true", "PREFECT_LOGGING_LEVEL": "INFO"}   # no site's lines
        from flows.coordinator_worker import CoordinatorWorker
        from flows.deployments import deploy_coordinator
        from flows.watch import a_sentence_is_enough
        from infra.worker_process import serve

        for runs in ("flow_runs", "task_runs"):
            logging.getLogger(f"prefect.{runs}").addFilter(a_sentence_is_enough)
        worker = CoordinatorWorker(
            f"{coordinator.served}-coordinator",
            lambda client: deploy_coordinator(client, coordinator.federation, coordinator.served, repair=True))
        if health.is_wanted():
            health.serve(worker.trouble, coordinator_numbers(coordinator))
        serve(worker)


async def register(folder: Path, cron: tuple[str, str, str, dict[str, Any]] | None = None, *, keep: bool = True,
                   dry: bool = False) -> list[Change]:
    """Deploy the federation; returns what was changed. Raises SetupError if the API does not answer.

    cron: a new schedule, the run of its rounds, the time zone, and what is chosen for new runs. As
    `flows.deployments.deploy`.
    """
    coordinator = enter(folder)
    if not dry:
        coordinator.publish_federation()
    import httpx

    from flows.deployments import deploy
    from flows.schedule import Schedule
    from infra.api_problems import NOT_SERVED

    try:
        return await deploy(coordinator.federation, None if cron is None else Schedule(*cron), keep=keep, dry=dry)
    except NOT_SERVED as error:
        if cron is not None and isinstance(error, httpx.HTTPStatusError) and error.response.status_code == 422:
            raise ContractError("the Prefect API refused the schedule: check --cron: five fields, for example "
                                "'0 3 * * 1'") from None
        raise _no_api(coordinator.settings, error) from None


async def automate(folder: Path, notify: str | None, *, dry: bool = False) -> list[Change]:
    """As `flows.automations.automate`. Raises SetupError if the API does not answer."""
    coordinator = enter(folder)
    from flows import automations
    from infra.api_problems import NOT_SERVED

    try:
        return await automations.automate(coordinator.federation, notify, dry=dry)
    except NOT_SERVED as error:
        raise _no_api(coordinator.settings, error) from None


async def register_site(folder: Path, site: str) -> bool:
    """Deploy one site, so that a running campaign finds it; False if the API does not answer."""
    use_api(load_toml(CoordinatorSettings, folder / "coordinator.toml").api_url, folder.resolve())
    import httpx
    from prefect import get_client

    from site_workers.deployments import deploy_site

    try:
        async with get_client() as client:
            await deploy_site(client, site)
    except (httpx.HTTPError, RuntimeError):
        return False
    return True


async def look_at_members(folder: Path) -> list[Member]:
    """As `flows.members.members`; asks for no passphrase. Raises SetupError that says why the API does not serve."""
    settings = load_toml(CoordinatorSettings, folder / "coordinator.toml")
    use_api(settings.api_url, folder.resolve())
    from flows.members import members
    from infra.api_problems import NOT_SERVED

    try:
        return await members(load_federation(folder / settings.federation))
    except NOT_SERVED as error:
        raise _no_api(settings, error) from None


async def retrain(coordinator: Coordinator, rounds: int | None) -> bool:
    """As `flows.alarms.retrain_on_alarm`. Raises SetupError if the federation is not deployed, or the API does not answer."""
    from prefect.exceptions import ObjectNotFound

    from flows.alarms import retrain_on_alarm
    from infra.api_problems import NOT_SERVED

    try:
        return await retrain_on_alarm(coordinator.federation, rounds)
    except ObjectNotFound:
        raise _not_deployed(coordinator) from None
    except NOT_SERVED as error:
        raise _no_api(coordinator.settings, error) from None


@dataclass(frozen=True)
class StartedRun:
    """A flow run that the coordinator's process will carry out."""

    id: UUID
    name: str
    url: str


async def start(coordinator: Coordinator, flow: str, request: dict[str, Any]) -> StartedRun:
    """Ask for a round or a campaign, as the UI's form does. Raises SetupError if nobody could carry it out."""
    from prefect import get_client
    from prefect.exceptions import ObjectNotFound

    from flows.deployment_names import full_name
    from flows.forms import grouped
    from infra.api_problems import NOT_SERVED

    try:
        async with get_client() as client:
            deployment = await client.read_deployment_by_name(full_name(flow, coordinator.served))
            run = await client.create_flow_run_from_deployment(deployment.id, parameters={"request": grouped(request)})
    except ObjectNotFound:
        raise _not_deployed(coordinator) from None
    except NOT_SERVED as error:
        raise _no_api(coordinator.settings, error) from None
    ui = coordinator.settings.api_url.removesuffix("/api")
    return StartedRun(run.id, run.name, f"{ui}/runs/flow-run/{run.id}")


async def states(started: StartedRun, tick_s: float, ask_s: float) -> AsyncIterator[tuple[str, str, bool]]:
    """The run's state (type, message, whether it is final) every `tick_s` seconds until it is final, or was deleted.

    The API is asked only every `ask_s` seconds whether the state is still the same. The whole state is fetched only when it
    changed: that costs the server ten milliseconds.
    """
    import asyncio

    from prefect import get_client
    from prefect.exceptions import ObjectNotFound

    async with get_client() as client:
        state, asked = None, float("-inf")
        while True:
            if (now := asyncio.get_running_loop().time()) - asked >= ask_s:
                asked = now
                if state is None or not await is_in(client, started.id, state.type):
                    try:
                        state = (await client.read_flow_run(started.id)).state
                    except ObjectNotFound:
                        yield "DELETED", "somebody has deleted the flow run; committed rounds stay", True
                        return
            if state is not None:
                yield state.type.value, state.message or "", state.is_final()
                if state.is_final():
                    return
            await asyncio.sleep(tick_s)


async def cancel(started: StartedRun) -> None:
    """Ask for the run's end. The round in progress commits nothing; committed rounds stay."""
    from prefect import get_client
    from prefect.states import Cancelling

    async with get_client() as client:
        await set_state(client, started.id, Cancelling())


def _not_deployed(coordinator: Coordinator) -> SetupError:
    return SetupError(f"federation '{coordinator.federation.name}' is not deployed: run 'fedround deploy'")


def _no_api(settings: CoordinatorSettings, error: Exception) -> SetupError:
    from infra.api_problems import problem

    return SetupError(problem(settings.api_url, error, "start it with 'fedround up', or mend api_url in "
                                                                   "coordinator.toml"))
