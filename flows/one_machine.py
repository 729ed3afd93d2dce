"""A whole federation on one machine, with its real parts: servers, a coordinator process, a process per site.

For the demonstration, the tests and the benchmarks. Every site goes through the same door as a real one: an
invitation, a folder of its own with its own keys, policy, ledger and S3 credential, and a place in the federation file.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from fedround.errors import SetupError
from flows.service import enter, register
from infra.api_problems import is_login_refused, problem
from infra.settings import CoordinatorSettings, DataSettings, S3Settings
from infra.stack import LocalStack, StackInfo
from infra.stack.processes import recorded, start_recorded, stop_recorded
from site_workers.enrol import create_site
from site_workers.host import ONE_THREAD
from site_workers.policy import Protected
from tasks.coordinator import Coordinator
from tasks.invitations import invite_site
from tasks.membership import add_member, create_coordinator
from validation.row_files import ending_of

if TYPE_CHECKING:
    from prefect.client.schemas.objects import Worker

READY_S = 300.0        # for a busy machine; a process that ends is noticed at once


@dataclass(frozen=True)
class SiteToMake:
    """A site that will be made: where its rows are, its weight, and how many rows it trains on, as agreed."""

    name: str
    train: Path
    validation: Path
    weight: float
    rows: int | None = None


@dataclass(frozen=True)
class Founding:
    """What a federation on one machine begins with: the settings of the federation file, and the files that these name."""

    settings: Mapping[str, Any]
    recipe: Path
    contract: Path
    test_set: Path | None


class OneMachine:
    """A federation below one folder: `home`/coordinator, `home`/sites/NAME, and the servers' data."""

    def __init__(self, home: Path):
        self.home = home.resolve()
        self.coordinator = self.home / "coordinator"

    def site(self, name: str) -> Path:
        """A site's folder."""
        return self.home / "sites" / name

    @property
    def exists(self) -> bool:
        """Whether the set-up of the federation was completed."""
        return (self.home / ".set-up").exists()

    def start_servers(self, progress: Callable[[str], None]) -> StackInfo:
        """Start, or find, PostgreSQL, Prefect and S3."""
        return LocalStack(self.home).start(progress)

    def set_up(self, founding: Founding, members: list[SiteToMake], *, max_epsilon: float, delta_dp: float,
               units: tuple[Protected, ...] = ("record",), min_rows: int = 100, measures: bool = False) -> None:
        """Create the coordinator's and every site's folder, and deploy. The servers must run. measures: as `create_site`."""
        stack = LocalStack(self.home)
        info = stack.find(self.home)
        if info is None:
            raise SetupError(f"no servers run from {self.home}: start them first")
        create_coordinator(
            self.coordinator, dict(founding.settings),
            CoordinatorSettings(
                recipe="approved/recipe.py", contract="approved/contract.json", api_url=info.api_url,
                test_set=None if founding.test_set is None else f"test_set{ending_of(founding.test_set)}",
                store=S3Settings(endpoint=info.s3_endpoint, bucket=info.bucket)),
            founding.recipe, founding.contract, stack.coordinator_credential(), founding.test_set)
        for member in members:
            invitation = invite_site(self.coordinator, member.name, stack.grant_site(member.name))
            key = create_site(
                self.site(member.name), invitation,
                DataSettings(dataset="clients", train=str(member.train), validation=str(member.validation)),
                max_epsilon=max_epsilon, delta_dp=delta_dp, units=units, min_rows=min_rows, measures=measures,
                compares_groups=founding.settings.get("groups") is not None)
            add_member(self.coordinator, member.name, key, member.weight, member.rows)
        asyncio.run(register(self.coordinator))
        (self.home / ".set-up").touch()

    def start_processes(self, progress: Callable[[str], None], others: Mapping[str, str] | None = None) -> Coordinator:
        """Start the coordinator's and the sites' processes and wait until all of them serve their pools.

        others: by site, the module of the program that runs instead of the pipeline's. It gets the site's folder.
        """
        coordinator = enter(self.coordinator)
        names = [site.name for site in coordinator.federation.sites]
        programs = {"sites": ("site_workers.host", [name for name in names if name not in (others or {})])}
        programs |= {f"site-{name}": (module, [name]) for name, module in (others or {}).items()}
        running, logs = recorded(self.home), self.home / "logs"
        if "coordinator" not in running:
            start_recorded(self.home, "coordinator", [
                sys.executable, "-m", "flows.host", str(self.coordinator)],
                logs / "coordinator.log", {})
        for process, (module, served) in programs.items():
            if process not in running and served:
                start_recorded(self.home, process, [
                    sys.executable, "-m", module, *(str(self.site(name)) for name in served)],
                    logs / f"{process}.log", ONE_THREAD)
        asyncio.run(_wait_until_serving(self, coordinator, names, progress))
        return coordinator

    def stop(self) -> None:
        """Stop the processes, then the servers. Committed rounds and all data stay."""
        stop_recorded(self.home)
        LocalStack(self.home).stop()


async def _wait_until_serving(machine: OneMachine, coordinator: Coordinator, names: list[str],
                              progress: Callable[[str], None]) -> None:
    from prefect import get_client
    from prefect.exceptions import ObjectNotFound

    waiting, trouble = {*names, coordinator.federation.pool}, ""
    total, end, started = len(waiting), time.monotonic() + READY_S, recorded(machine.home).keys()
    since = time.time()
    async with get_client() as client:
        while waiting:
            try:
                for pool in sorted(waiting):
                    if _serves(await client.read_workers_for_work_pool(pool), since - 30):
                        waiting.discard(pool)
                trouble = ""
            except ObjectNotFound:                  # a pool that was deleted: its worker makes it again
                trouble = ""
            except httpx.HTTPError as error:        # a database that has just begun again, say: asked again until the end
                why = problem(coordinator.settings.api_url, error, "look at its log")
                if is_login_refused(error):
                    raise SetupError(why) from None
                trouble = f"; {why}"
            progress(f"{total - len(waiting)} of {total} processes are ready")
            if started - recorded(machine.home).keys():
                raise SetupError(f"a process ended while it started; its last words are in {machine.home / 'logs'} and "
                                 "in the sites' site.log")
            if time.monotonic() > end:
                raise SetupError(f"not ready after {READY_S:.0f} s: {', '.join(sorted(waiting))}; see "
                                 f"{machine.home / 'logs'}{trouble}")
            await asyncio.sleep(0.5)


def _serves(workers: Sequence[Worker], since: float) -> bool:
    """Whether one of them lives, and has said so since then."""
    return any(one.status == "ONLINE" and one.last_heartbeat_time is not None
               and one.last_heartbeat_time.timestamp() >= since for one in workers)
