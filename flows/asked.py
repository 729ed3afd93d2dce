"""A question from its published plan to all sites' answers. What is made of the answers is decided in the flow.

Where answers are added up under masks, keys are set up before it, and after it the sites reveal what takes the masks off.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

from prefect import get_client
from prefect.client.orchestration import PrefectClient

from fedround.errors import QuorumError
from fedround.records import Finding
from fedround.rounds.tickets import ended
from flows import steps
from flows.alarm_events import tell_answers
from flows.watch import Watch
from tasks.ask import find, known
from tasks.collect import have_answered, take_late
from tasks.collected import Collected
from tasks.coordinator import Coordinator
from tasks.idleness import Idleness
from tasks.invite import InvitedRuns, invite_again
from tasks.plan import Planned
from tasks.requests import RoundRequest
from tasks.setting_up import check_in_a_row, next_question
from tasks.unmask import give_up, is_signed, suffices, why_lost, why_not_added

SOON_S = 0.1
"""Sites wait for the question about the sum, and have the answer at hand: it is looked for so often at first."""
_SELDOM_S = 5.0
IN_STORE_S = 15.0
"""So often the store is asked about everybody who is waited for: signals may be lost, all of them if whoever holds the API's
key wants that.
"""


async def asked(coordinator: Coordinator, planned: Planned, watch: Watch) -> tuple[InvitedRuns, Collected]:
    """Invite the cohort, and collect until everybody has answered or the deadline is over."""
    watch.plan(planned.plan)
    async with get_client() as client:
        invited, again = await steps.invite(planned, is_own=not steps.in_one()), await invite_again(planned)
        try:
            answers = await steps.collect(coordinator, planned, _ended(coordinator, planned, invited, again, client),
                                          watch.answers, still=_still(coordinator, (invited, *again), client, watch))
        except asyncio.CancelledError:                  # nobody works on for a round that is over
            waited_for = watch.waited_for if planned.plan.asks.slot is None else set(planned.plan.cohort)
            for one in (invited, *again):
                await one.stop(client, waited_for & one.sites)
            raise
        if planned.plan.agreed.pace is None or not planned.plan.asks.makes_model:
            await invited.close(client, set(answers.missing))
        answers = take_late(coordinator, planned, answers)
        over = {ticket.site for ticket in ended(planned.plan, answers.missing)}
        for one in again:                               # an answer would not count any more
            await one.stop(client, over & one.sites)
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


def _ended(coordinator: Coordinator, planned: Planned, invited: InvitedRuns, again: tuple[InvitedRuns, ...],
           client: PrefectClient) -> Callable[[set[str]], Awaitable[set[str]]]:
    """Who has answered. A flow run that answers under masks goes on until it has revealed, so there the store is asked. So it
    is about those who answer earlier plans: they may be many, and how their flow runs end is looked at now and then. About
    all others it is asked now and then.
    """
    looked = in_store_at = time.monotonic()

    async def ended(among: set[str]) -> set[str]:
        nonlocal looked, in_store_at
        in_store = among if planned.plan.asks.slot is not None else among & planned.earlier.keys()
        if time.monotonic() - in_store_at > IN_STORE_S:
            in_store = among
        if in_store == among:
            in_store_at = time.monotonic()
        there = await have_answered(coordinator, planned, in_store) if in_store else set[str]()
        if (now := time.monotonic()) - looked > _SELDOM_S:
            looked = now
            for one in again:
                there |= await one.ended(client, waiting) if (waiting := (among - there) & one.sites) else set()
        mine = (among - there) & invited.sites
        return there | (await invited.ended(client, mine) if mine else set())

    return ended


def _still(coordinator: Coordinator, invitations: tuple[InvitedRuns, ...], client: PrefectClient,
           watch: Watch) -> Callable[[set[str]], Awaitable[set[str]]]:
    """Who has stopped moving, looked at now and then; nobody, where the federation file gives nobody up."""
    idle_s, looked, found = coordinator.federation.idle_s, time.monotonic(), set[str]()
    idleness = None if idle_s is None else Idleness(idle_s)

    async def still(among: set[str]) -> set[str]:
        nonlocal looked, found
        if idleness is not None and (now := time.monotonic()) - looked > _SELDOM_S:
            looked, signs = now, dict[str, object]()
            for one in invitations:
                if waiting := among & one.sites:
                    signs |= await one.signs(client, waiting)
            found = idleness.still(among, signs)
            watch.still(found)
        return found & among

    return still


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
    if (why := why_lost(coordinator, planned, reveal, said) or why_not_added(reveal, answers)) is not None:
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
