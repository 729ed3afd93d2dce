"""A question on its way: from a published plan to everybody's answers. What is made of them is the flow's."""

from __future__ import annotations

from prefect import get_client

from flows import steps
from flows.watch import Watch
from tasks.collect import Collected, take_late
from tasks.coordinator import Coordinator
from tasks.invite import Invited, close, finished
from tasks.plan import Planned


async def asked(coordinator: Coordinator, planned: Planned, watch: Watch) -> tuple[Invited, Collected]:
    """Invite the cohort, and collect until everybody has answered or the deadline is over."""
    watch.plan(planned.plan)
    async with get_client() as client:
        invited = await steps.invite(planned)
        answers = await steps.collect(coordinator, planned, lambda among: finished(client, invited, among), watch.answers)
        await close(client, invited, set(answers.missing))
        return invited, take_late(coordinator, planned, answers)
