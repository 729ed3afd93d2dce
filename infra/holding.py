"""Whether people hold a pool's work: a pause, or a concurrency limit of 0, of the pool, its queue or its deployments.

A poll never gets a run of a paused pool. Whoever begins work on an event has to ask. What was read is good for some seconds,
or until an event says that something was changed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import WorkPool, WorkQueue
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound

from fedround.spoken import one_line
from infra.asking import DEPLOYMENTS

CHANGED = ("prefect.deployment.updated", *(f"prefect.{what}.{how}" for what in ("work-pool", "work-queue")
                                           for how in ("updated", "paused", "ready", "not-ready")))
"""The events after which a pool's work may be held, or not any more."""

GOOD_FOR_S = 30.0
"""Events tell what was changed. For one that is lost this is as long as the pause between two polls."""


class Holding:
    """What holds the work of one pool."""

    def __init__(self, client: PrefectClient, pool: str, flows: Iterable[str] = ()):
        """flows: those whose deployments, which are named after the pool, hold it too."""
        self._client, self._pool, self._flows = client, pool, tuple(flows)
        self._known: str | None = None
        self._until = 0.0

    def forget(self) -> None:
        """Something was changed: ask again."""
        self._until = 0.0

    async def why(self) -> str | None:
        """Who or what holds the work, as a sentence; None: it may begin. Raises httpx errors of the API."""
        if time.monotonic() >= self._until:
            self._known = await self._ask()
            self._until = time.monotonic() + GOOD_FOR_S
        return self._known

    async def _ask(self) -> str | None:
        try:
            pool, queues, deployments = await asyncio.gather(
                self._client.read_work_pool(self._pool), self._client.read_work_queues(work_pool_name=self._pool),
                asyncio.gather(*(self._deployment(flow) for flow in self._flows)))
        except ObjectNotFound:
            return None             # there is nothing yet, and nobody has paused it
        return _held(pool, queues, deployments)

    async def _deployment(self, flow: str) -> DeploymentResponse | None:
        try:
            return await self._client.read_deployment_by_name(f"{flow}/{DEPLOYMENTS[flow].format(site=self._pool)}")
        except ObjectNotFound:
            return None


def _held(pool: WorkPool, queues: list[WorkQueue], deployments: Iterable[DeploymentResponse | None]) -> str | None:
    if (why := _stopped(pool.is_paused, pool.concurrency_limit)) is not None:
        return f"the work pool '{one_line(pool.name)}' {why}"
    for queue in queues:
        if queue.id == pool.default_queue_id and (why := _stopped(queue.is_paused, queue.concurrency_limit)) is not None:
            return f"the queue '{one_line(queue.name)}' of the work pool '{one_line(pool.name)}' {why}"
    for one in deployments:
        if one is not None:
            limit = one.global_concurrency_limit
            if (why := _stopped(one.paused, limit.limit if limit is not None and limit.active else None)) is not None:
                return f"the deployment '{one_line(one.name)}' {why}"
    return None


def _stopped(paused: bool, limit: int | None) -> str | None:
    return "is paused" if paused else "has a concurrency limit of 0" if limit == 0 else None
