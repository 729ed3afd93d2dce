"""How fedround's processes talk to Prefect: settings that must stand in the environment before Prefect is imported."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedround.errors import SetupError

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import Worker
    from prefect.states import State
    from pydantic import SecretStr

_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",           # our server has it off: one request less per client
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",                # a site's log lines stay at the site
    "PREFECT_WORKER_QUERY_SECONDS": "30",                     # the fallback; an event wakes the workers
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_API_REQUEST_TIMEOUT": "60",
}


def use_api(api_url: str, home: Path) -> None:
    """Point this process at an API, before Prefect is imported. Prefect's own files go below `home`.

    A variable that the operator has set in the environment wins. The API address is the exception: it stands in the site's or
    the coordinator's own file.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    os.environ["PREFECT_API_URL"] = api_url
    os.environ["PREFECT_HOME"] = str(home / "prefect")
    os.environ["PREFECT_PROFILES_PATH"] = str(home / "prefect" / "profiles.toml")


async def is_in(client: PrefectClient, run: UUID, *states: str) -> bool:
    """Whether the flow run is in one of these states. Only a number is sent back: a third of the cost of the run itself."""
    counted = await client.request("POST", "/flow_runs/count", json={"flow_runs": {
        "id": {"any_": [str(run)]}, "state": {"type": {"any_": list(states)}}}})
    return bool(counted.json())


async def set_state(client: PrefectClient, run: UUID, state: State[Any], *, force: bool = False) -> bool:
    """Set the flow run's state. False: somebody has deleted the run, as everybody with the API's key may at any time.
    Then nobody waits for its end.
    """
    from prefect.exceptions import ObjectNotFound

    try:
        await client.set_flow_run_state(run, state, force=force)
    except ObjectNotFound:
        return False
    return True


async def suspended(client: PrefectClient, run: UUID) -> bool:
    """Whether somebody has paused or suspended the flow run. One that was deleted is neither.

    A paused one of a deployment becomes suspended: who resumes it has it scheduled again, and no process waits for that. One
    without a deployment can only be paused, and is Running once it is resumed.
    """
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Suspended

    try:
        found = await client.read_flow_run(run)
    except ObjectNotFound:
        return False
    if (state := found.state) is None or not state.is_paused():
        return False
    if found.deployment_id is not None and not state.state_details.pause_reschedule:
        await set_state(client, run, Suspended(pause_expiration_time=state.state_details.pause_timeout), force=True)
    return True


@dataclass(frozen=True)
class Served:
    """What a site sees of the API that it is to use."""

    date: str | None
    """The server's clock, as HTTP says it."""
    others: str | None
    """Who serves the site's pool besides the site's own worker: names, quoted. None: there is no such pool yet.

    Prefect lets everybody who reaches the API poll a pool with any number of workers of any type.
    """


def look_at_api(api_url: str, pool: str, mend: str, home: Path, mine: str | None = None) -> Served:
    """Ask the API as the site's worker will, with its login and its certificates.

    mine: the name of the site's own worker, if it has had one. mend: what a person can do if nobody answers. home: as
    `use_api`. Raises SetupError that says why not.
    """
    import asyncio

    use_api(api_url, home)
    from prefect.client.orchestration import PrefectClient
    from prefect.exceptions import ObjectNotFound
    from prefect.settings import get_current_settings

    from infra.api_problems import NOT_SERVED, problem

    async def ask() -> Served:
        api = get_current_settings().api
        async with PrefectClient(api_url, auth_string=_text(api.auth_string), api_key=_text(api.key)) as client:
            answer = await client.request("GET", "/health")
            try:
                others = named(await client.read_workers_for_work_pool(pool), mine)
            except ObjectNotFound:
                others = None
            return Served(answer.headers.get("date"), others)

    try:
        return asyncio.run(ask())
    except NOT_SERVED as error:
        raise SetupError(problem(api_url, error, mend)) from None


def named(workers: Iterable[Worker], mine: str | None) -> str:
    """The same, of workers that were read already."""
    return ", ".join(sorted(ascii(worker.name) for worker in workers if worker.name != mine and worker.status == "ONLINE"))


def _text(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
