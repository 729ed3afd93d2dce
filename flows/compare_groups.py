"""Before a model is promoted: how it decides about the groups that the federation watches."""

from __future__ import annotations

from flows import steps
from flows.asked import asked
from flows.watch import Watch
from tasks.afterwards import afterwards
from tasks.ask import find
from tasks.compare_groups import question, tell
from tasks.coordinator import Coordinator


async def groups_compared(coordinator: Coordinator, run: str, number: int) -> None:
    """Ask all sites, unless nothing is watched or they were asked before. Raises QuorumError if too few answer."""
    if (request := question(coordinator, run, number)) is None:
        return
    with Watch(coordinator.folder, run) as watch:
        planned = steps.plan_question(coordinator, request)
        if find(coordinator, planned) is None:
            _, answers = await asked(coordinator, planned, watch)
            steps.conclude(coordinator, planned, answers)
        with afterwards("groups on the round's page", watch.missed):
            tell(coordinator, planned.parent.commit)
