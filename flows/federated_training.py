"""A training campaign: rounds until enough are committed, then one evaluation at the sites, where counts may leave."""

from __future__ import annotations

from prefect import flow

from fedround.rounds.campaign import counts_leave
from flows.federated_evaluation import federated_evaluation
from flows.federated_round import federated_round
from infra.history import last_round
from tasks.coordinator import current_coordinator
from tasks.plan import RoundRequest, TrainingRequest


@flow(name="federated-training", flow_run_name="{request.run}: {request.rounds} rounds", persist_result=False)
async def federated_training(request: TrainingRequest) -> int:
    """Run rounds until `request.rounds` of the run are committed; returns how many are. Stops at the first that fails.

    Rounds that exist count, so a campaign that was interrupted and is started again does only what is left.
    """
    one_more = RoundRequest(run=request.run, quorum=request.quorum, deadline_s=request.deadline_s)
    while (done := last_round(current_coordinator().store, request.run) or 0) < request.rounds:
        await federated_round(one_more)
    if counts_leave(current_coordinator().federation.privacy):
        await federated_evaluation(one_more)
    return done
