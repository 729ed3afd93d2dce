"""One federated round, from a request to a committed model and its report."""

from __future__ import annotations

import time

from prefect import flow, get_client

from flows import steps
from flows.artifacts import show
from flows.dask_sweeper import sweeper_of
from flows.watch import Watch
from tasks.catch_up import catch_up
from tasks.collect import take_late
from tasks.coordinator import current_coordinator
from tasks.plan import RoundRequest
from tasks.reporting import RoundRecord


@flow(name="federated-round", flow_run_name="{request.run}: one more round", persist_result=False, log_prints=False)
async def federated_round(request: RoundRequest) -> RoundRecord:
    """Plan, invite, collect until everybody has answered or the deadline is over, aggregate, publish, evaluate, report.

    A round that fails commits nothing; run again, it goes on with the answers that are there.
    """
    began = time.monotonic()
    coordinator = current_coordinator()
    with Watch(coordinator.folder, request.run) as watch:
        catch_up(coordinator, request.run)
        planned = steps.plan_round(coordinator, request)
        watch.plan(planned.plan)

        async with get_client() as client:
            invited = await steps.invite(planned)
            answers = await steps.collect(coordinator, planned, lambda among: invited.ended(client, among), watch.answers)
            await invited.close(client, set(answers.missing))
            answers = take_late(coordinator, planned, answers)

        watch.stage("aggregate")
        with sweeper_of(coordinator) as sweeper:
            aggregate = steps.aggregate(coordinator, planned, answers, sweeper)
        committed = steps.publish(coordinator, planned, answers, aggregate)

        watch.stage("evaluate")
        metrics = steps.evaluate(coordinator, committed.commit)
        record = steps.report(coordinator, planned, answers, committed, metrics, time.monotonic() - began)
        await show(coordinator, record, invited)
    return record
