"""Before a model is promoted: how it decides about the groups that the federation watches."""

from __future__ import annotations

from flows.asked import answered
from flows.watch import Watch
from tasks.afterwards import afterwards
from tasks.compare_groups import question, tell
from tasks.coordinator import Coordinator


async def groups_compared(coordinator: Coordinator, run: str, number: int) -> None:
    """Ask all sites, unless nothing is watched or they were asked before. Raises QuorumError if too few answer."""
    if (request := question(coordinator, run, number)) is None:
        return
    with Watch(coordinator.folder, run) as watch:
        planned, _, _ = await answered(coordinator, request, watch)
        with afterwards("groups on the round's page", watch.missed):
            tell(coordinator, planned.parent.commit)
