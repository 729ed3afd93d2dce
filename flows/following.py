"""With several coordinators: a round in which this one only signs."""

from __future__ import annotations

import asyncio
import threading

from fedround.errors import Cancelled
from tasks.coordinator import Coordinator
from tasks.rotation import follow


async def followed(coordinator: Coordinator, run: str) -> int | None:
    """The number of the next round, once another coordinator's proposal is committed; None: this one proposes it, because it
    is its turn, because the others are silent, or because there are no others.
    """
    if not coordinator.federation.coordinators:
        return None
    stopped = threading.Event()

    def sleep(seconds: float) -> None:
        if stopped.wait(seconds):
            raise Cancelled(f"run '{run}': stopped while another coordinator had its turn")

    try:
        done = await asyncio.to_thread(follow, coordinator, run, sleep)
    finally:
        stopped.set()
    return None if done is None else done.commit.round
