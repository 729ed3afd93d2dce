"""A question from its published plan to all sites' answers. What is made of the answers is decided in the flow."""

from __future__ import annotations

import asyncio

from prefect import get_client

from flows import steps
from flows.alarm_events import tell_answers
from flows.watch import Watch
from tasks.collect import Collected, take_late
from tasks.coordinator import Coordinator
from tasks.invite import Invitation
from tasks.plan import Planned


async def asked(coordinator: Coordinator, planned: Planned, watch: Watch) -> tuple[Invitation, Collected]:
    """Invite the cohort, and collect until everybody has answered or the deadline is over."""
    watch.plan(planned.plan)
    async with get_client() as client:
        invited = await steps.invite(planned)
        try:
            answers = await steps.collect(coordinator, planned, lambda among: invited.ended(client, among), watch.answers)
        except asyncio.CancelledError:                  # nobody works on for a round that is over
            await invited.stop(client, watch.waited_for)
            raise
        await invited.close(client, set(answers.missing))
        answers = take_late(coordinator, planned, answers)
        tell_answers(coordinator, planned.plan, answers)
        return invited, answers
