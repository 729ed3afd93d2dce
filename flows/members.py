"""Who of a federation serves rounds, as the Prefect server sees it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime

from prefect import get_client
from prefect.client.orchestration import PrefectClient
from prefect.exceptions import ObjectNotFound

from fedround.federation import Federation


@dataclass(frozen=True)
class Member:
    """A coordinator, or a site."""

    name: str
    serves: bool
    """Whether its worker has been heard of lately: Prefect's own judgement."""
    seen: datetime | None
    """When its worker was last heard of; None: never."""


async def members(federation: Federation) -> list[Member]:
    """The coordinators, the regional ones, then the sites, in the order of the federation file. Raises httpx errors."""
    others = {pool.removesuffix("-coordinator").removeprefix(f"{federation.name}-"): pool for pool in federation.pools[1:]}
    pools = {"coordinator": federation.pool, **{f"coordinator {name}": pool for name, pool in others.items()},
             **{f"region {region.name}": region.name for region in federation.regions},
             **{site.name: site.name for site in federation.sites}}
    async with get_client() as client:
        return list(await asyncio.gather(*(_member(client, name, pool) for name, pool in pools.items())))


async def _member(client: PrefectClient, name: str, pool: str) -> Member:
    try:
        workers = await client.read_workers_for_work_pool(pool)
    except ObjectNotFound:      # no pool yet: never started, or not deployed
        return Member(name, serves=False, seen=None)
    seen = max((worker.last_heartbeat_time for worker in workers if worker.last_heartbeat_time is not None), default=None)
    return Member(name, any(worker.status == "ONLINE" for worker in workers), seen)
