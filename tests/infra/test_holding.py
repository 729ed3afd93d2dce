"""What holds a pool's work, against a client that answers as Prefect's server does. The server: `e2e/test_holding.py`."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.exceptions import ObjectNotFound

from infra.holding import Holding

QUEUE = uuid.uuid4()
FREE: dict[str, Any] = {"paused": False, "limit": None}
FULL: dict[str, Any] = {"paused": False, "limit": 0}
PAUSED: dict[str, Any] = {"paused": True, "limit": None}


class Server:
    """A pool with one queue and one deployment."""

    def __init__(self, pool: dict[str, Any], queue: dict[str, Any], deployment: dict[str, Any] | None):
        self.pool, self.queue, self.deployment, self.asked = pool, queue, deployment, 0

    async def read_work_pool(self, name: str) -> SimpleNamespace:
        self.asked += 1
        return SimpleNamespace(name=name, is_paused=self.pool["paused"], concurrency_limit=self.pool["limit"],
                               default_queue_id=QUEUE)

    async def read_work_queues(self, work_pool_name: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(id=QUEUE, name="default", is_paused=self.queue["paused"],
                                concurrency_limit=self.queue["limit"])]

    async def read_deployment_by_name(self, name: str) -> SimpleNamespace:
        if self.deployment is None:
            raise ObjectNotFound(RuntimeError("404"))
        limit = self.deployment["limit"]
        return SimpleNamespace(name=name.partition("/")[2], paused=self.deployment["paused"],
                               global_concurrency_limit=limit if limit is None else SimpleNamespace(limit=limit, active=True))


@pytest.mark.parametrize(("server", "says"), [
    (Server(PAUSED, FREE, FREE), "the work pool 'north' is paused"),
    (Server(FULL, FREE, FREE), "the work pool 'north' has a concurrency limit of 0"),
    (Server(FREE, PAUSED, FREE), "the queue 'default' of the work pool 'north' is paused"),
    (Server(FREE, FULL, FREE), "the queue 'default' of the work pool 'north' has a concurrency limit of 0"),
    (Server(FREE, FREE, PAUSED), "the deployment 'north' is paused"),
    (Server(FREE, FREE, FULL), "the deployment 'north' has a concurrency limit of 0"),
    (Server(FREE, FREE, None), None), (Server(FREE, FREE, FREE), None),
    (Server({"paused": False, "limit": 1}, FREE, FREE), None)])
async def test_every_way_to_hold_a_pool_is_seen(server: Server, says: str | None):
    assert await Holding(server, "north", ["site-round"]).why() == says      # type: ignore[arg-type]


async def test_it_is_asked_again_when_something_has_changed_and_not_for_every_round():
    server = Server(FREE, FREE, FREE)
    holding = Holding(server, "north")      # type: ignore[arg-type]
    assert [await holding.why() for _ in range(3)] == [None] * 3
    assert server.asked == 1
    server.pool = PAUSED
    holding.forget()
    assert await holding.why() == "the work pool 'north' is paused"
