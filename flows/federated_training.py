"""A training campaign: rounds until enough are committed, then one evaluation at the sites if counts may leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import httpx
from prefect import flow, get_run_logger
from prefect.exceptions import ObjectNotFound

from fedround.errors import ContractError, SetupError
from fedround.rounds.campaign import counts_leave
from fedround.spoken import how_many
from flows.artifacts import show_campaign, show_contribution
from flows.federated_evaluation import federated_evaluation
from flows.federated_round import federated_round
from flows.pausing import stop_here_if_paused
from flows.steps import one_step
from infra.api_problems import problem
from tasks.afterwards import afterwards
from tasks.contribution import settle
from tasks.coordinator import current_coordinator
from tasks.ending import ends_here
from tasks.invite import begin_campaign, end_campaign
from tasks.partition import with_its_run
from tasks.requests import NextRoundRequest, RoundRequest, TrainingRequest


@flow(name="federated-training", flow_run_name="{request.run}: {request.rounds} rounds", persist_result=False)
async def federated_training(request: TrainingRequest) -> int:
    """Run rounds until `request.rounds` of the run are committed, or, with a patience, its score has settled; returns how
    many are committed.

    Stops at the first that fails. Rounds that exist count, so a campaign that was interrupted and is started again does only
    what is left.
    """
    request = with_its_run(current_coordinator(), request, datetime.now(UTC).date())
    asked = request.model_dump(include={"run", "quorum", "deadline_s", "sites"})
    one_more = NextRoundRequest(**asked, **request.model_dump(include={"partition", "after", "epsilon", "rule"}))
    async with _sites(request):
        while (done := _committed(request.run)) < request.rounds and not await _has_settled(request):
            await stop_here_if_paused()
            await shown(request, done)
            await _round(one_more, done + 1, inside=request.one_run_per_site)
        await shown(request, done)
        if counts_leave(current_coordinator().federation.privacy) and current_coordinator().is_founder:
            await federated_evaluation(RoundRequest(**asked))
    await contributions_told(request.run)
    return done


async def _round(request: NextRoundRequest, number: int, *, inside: bool) -> None:
    """inside: as a task run of the campaign, as it is at each site; else in a flow run of its own."""
    try:
        if inside:
            with one_step(f"round {number}"):
                await federated_round.fn(request)
        else:
            await federated_round(request)
    except ObjectNotFound:
        raise SetupError(f"somebody has deleted the flow run of round {number}, or a deployment that it needs ('fedround "
                         "deploy' makes these again). So the campaign ends here; what is committed stays: start it again, "
                         "and it does what is left") from None
    except httpx.HTTPError as error:    # what Prefect's own client has asked for again and again meanwhile
        why = problem(current_coordinator().settings.api_url, error, "look at its log")
        raise SetupError(f"{why}. So the campaign ends in round {number}; what is committed stays: start it again, and "
                         "it does what is left") from None


async def shown(request: TrainingRequest, done: int) -> None:
    """The campaign's own page. No campaign fails for it."""
    with afterwards("the campaign's page"):
        await show_campaign(current_coordinator(), request, done)


async def contributions_told(run: str) -> None:
    """What every site added, where the federation gives points for it. No campaign fails for it."""
    with afterwards("what the sites added"):
        if table := await asyncio.to_thread(settle, current_coordinator(), run):
            await show_contribution(run, table)


def _committed(run: str) -> int:
    """How many rounds of the run are committed."""
    coordinator = current_coordinator()
    return coordinator.last_round(run) or 0


async def _has_settled(request: TrainingRequest) -> bool:
    """Whether the campaign ends here, before its last round; and says so."""
    settled = await asyncio.to_thread(ends_here, current_coordinator(), request.run, request.patience)
    if settled and request.patience is not None:
        get_run_logger().info(f"in {how_many(request.patience, 'round')} the score has not grown beyond its noise: the "
                              "campaign ends")
    return settled


@asynccontextmanager
async def _sites(request: TrainingRequest) -> AsyncIterator[None]:
    """The sites' own flow runs, if each site is to have one for the whole campaign."""
    if not request.one_run_per_site:
        yield
        return
    if current_coordinator().federation.pace is not None:
        raise ContractError("with [pace] each member has a flow run for each plan that it works on, and these do not end "
                            "together: start the campaign without one_run_per_site")
    done = False
    sites = request.sites or [site.name for site in current_coordinator().federation.sites]
    await begin_campaign(request.run, sites, max(request.rounds, _committed(request.run)))
    try:
        yield
        done = True
    finally:
        await end_campaign(request.run, done=done)
