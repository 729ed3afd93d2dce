"""One federated round, from a request to a committed model and its report."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from prefect import flow

from flows import steps
from flows.alarm_events import failure_told, tell_budgets
from flows.artifacts import show
from flows.asked import asked, keys_set_up
from flows.dask_sweeper import sweeper_of
from flows.drift import measured_when_due
from flows.following import followed
from flows.watch import Watch
from tasks.afterwards import afterwards
from tasks.catch_up import catch_up
from tasks.coordinator import current_coordinator
from tasks.exports import export_apart
from tasks.partition import settled
from tasks.requests import NextRoundRequest
from tasks.rotation import by_majority


@flow(name="federated-round", flow_run_name="{request.run}: one more round", persist_result=False, log_prints=False)
async def federated_round(request: NextRoundRequest) -> int:
    """Plan, invite, collect until every site has answered or the deadline is over, aggregate, publish, evaluate, report.

    With several coordinators: sign what another proposes, unless it is this one's turn, or those whose turn it was are
    silent; pages of such rounds are made with the next round of its own.

    Returns the round's number. A round that fails commits nothing; run again, it uses the answers that are there. Once it is
    committed nothing stops it. What cannot be evaluated or reported is logged, and made by the next round.
    """
    began = time.monotonic()
    coordinator = current_coordinator()
    request = settled(coordinator, request, datetime.now(UTC).date())
    if (done := await followed(coordinator, request.run)) is not None:
        return done
    with Watch(coordinator.folder, request.run) as watch, failure_told(coordinator, request.run):
        catch_up(coordinator, request.run, watch.missed)
        await keys_set_up(coordinator, request, watch)
        planned = steps.plan_round(coordinator, request, by_majority(coordinator))
        invited, answers = await asked(coordinator, planned, watch)

        watch.over("wait for the sites")
        watch.stage("aggregate")
        with sweeper_of(coordinator) as sweeper:
            aggregate = steps.aggregate(coordinator, planned, answers, sweeper)
        watch.over("aggregate")
        committed = steps.publish(coordinator, planned, answers, aggregate, by_majority(coordinator))
        watch.over("publish")
        ended, timing = datetime.now(UTC), watch.timing         # before a measurement of drift asks the sites anew
        with afterwards(f"the measurement of drift after round {planned.plan.round}", watch.missed):
            await measured_when_due(coordinator, request, planned.plan.round, watch)

        watch.stage("evaluate")
        with afterwards(f"the report of round {planned.plan.round}", watch.missed):
            metrics = steps.evaluate(coordinator, committed.commit)
            record = steps.report(coordinator, planned, answers, committed, metrics, time.monotonic() - began, ended, timing)
            await show(coordinator, record, invited)
            tell_budgets(coordinator, record)
    with afterwards("the exports"):
        export_apart(coordinator, request.run)
    return committed.commit.round
