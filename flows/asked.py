"""A question from its published plan to all sites' answers. What is made of the answers is decided in the flow.

Where answers are added up under masks, keys are set up before it, and after it the sites reveal what takes the masks off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from prefect import get_client
from prefect.client.orchestration import PrefectClient

from fedround.errors import QuorumError
from fedround.records import Finding
from flows import steps
from flows.alarm_events import tell_answers
from flows.watch import Watch
from tasks.ask import find, known
from tasks.collect import Collected, have_answered, take_late
from tasks.coordinator import Coordinator
from tasks.invite import Invitation
from tasks.plan import Planned, RoundRequest
from tasks.setting_up import check_in_a_row, next_question
from tasks.unmask import give_up, is_signed, suffices, why_lost

SOON_S = 0.1
"""Sites wait for the question about the sum, and have the answer at hand: it is looked for so often at first."""


async def asked(coordinator: Coordinator, planned: Planned, watch: Watch) -> tuple[Invitation, Collected]:
    """Invite the cohort, and collect until everybody has answered or the deadline is over."""
    watch.plan(planned.plan)
    async with get_client() as client:
        invited = await steps.invite(planned)
        try:
            answers = await steps.collect(coordinator, planned, _ended(coordinator, planned, invited, client), watch.answers)
        except asyncio.CancelledError:                  # nobody works on for a round that is over
            await invited.stop(client, watch.waited_for if planned.plan.asks.slot is None else set(planned.plan.cohort))
            raise
        await invited.close(client, set(answers.missing))
        answers = take_late(coordinator, planned, answers)
        tell_answers(coordinator, planned.plan, answers)
        if planned.plan.by_region:
            answers = await steps.gather(coordinator, planned, answers, lambda among: invited.ended(client, among))
            await invited.close(client, {one.region for one in answers.regional.told if one.partial is None}
                                if answers.regional is not None else set())
        if planned.plan.asks.slot is not None:
            try:
                answers = await _unmasking(coordinator, planned, answers, watch)
            except (QuorumError, asyncio.CancelledError):       # nobody waits on for a sum that is not read
                await invited.stop(client, set(planned.plan.cohort))
                raise
        return invited, answers


def _ended(coordinator: Coordinator, planned: Planned, invited: Invitation,
           client: PrefectClient) -> Callable[[set[str]], Awaitable[set[str]]]:
    """Who has answered. A flow run that answers under masks goes on until it has revealed, so there the store is asked."""
    async def ended(among: set[str]) -> set[str]:
        there = set() if planned.plan.asks.slot is None else await have_answered(coordinator, planned, among)
        return there | (await invited.ended(client, among - there) if among - there else set())

    return ended


async def _unmasking(coordinator: Coordinator, planned: Planned, answers: Collected, watch: Watch) -> Collected:
    """Ask for what takes the masks off the sum, until enough have said it; where members sign who is in it, for that first.
    Raises QuorumError if too few answered, or do.
    """
    listed, signed, how = None, None, planned.plan.agreed.combine
    watch.stage("unmask")
    if how is not None and how.is_signed:
        listed = steps.plan_countersign(coordinator, planned, answers)
        signed = await steps.countersign(coordinator, listed, partial(have_answered, coordinator, listed), lambda _: None,
                                         enough=partial(is_signed, listed), at_first_s=SOON_S)
    reveal = steps.plan_reveal(coordinator, planned, answers, listed, signed)
    said = await steps.reveal(coordinator, reveal, partial(have_answered, coordinator, reveal), lambda _: None,
                              enough=partial(suffices, coordinator, planned, reveal), at_first_s=SOON_S)
    if (why := why_lost(coordinator, planned, reveal, said)) is not None:
        give_up(coordinator, planned, reveal, said, why)
    return steps.unmask(coordinator, planned, answers, reveal, said)


async def answered(coordinator: Coordinator, request: RoundRequest, watch: Watch) -> tuple[Planned, Finding, bool]:
    """A question that makes no model, its finding, and whether the sites were asked now: the same is asked once."""
    if coordinator.federation.combine is not None and known(coordinator, request) is None:
        await keys_set_up(coordinator, request, watch)
    planned = steps.plan_question(coordinator, request)
    if (finding := find(coordinator, planned)) is not None:
        return planned, finding, False
    _, answers = await asked(coordinator, planned, watch)
    return planned, steps.conclude(coordinator, planned, answers), True


async def keys_set_up(coordinator: Coordinator, request: RoundRequest, watch: Watch) -> None:
    """Let all members make keys, and deal shares of them, unless keys stand for the run's next sum."""
    begun = 0
    while (planned := next_question(coordinator, request)) is not None:
        begun += planned.plan.asks.kind == "keys"
        check_in_a_row(request.run, begun)
        _, answers = await asked(coordinator, planned, watch)
        steps.conclude(coordinator, planned, answers)
