"""Ask every site how good the run's last model is on the rows that it holds out. Nothing is trained or committed."""

from __future__ import annotations

from prefect import flow

from fedround.records import Finding
from flows.asked import answered
from flows.watch import Watch
from tasks.afterwards import afterwards
from tasks.catch_up import catch_up
from tasks.collect import read_again
from tasks.coordinator import current_coordinator
from tasks.report import record_evaluation
from tasks.requests import RoundRequest


@flow(name="federated-evaluation", flow_run_name="{request.run}: evaluation at the sites", persist_result=False)
async def federated_evaluation(request: RoundRequest) -> Finding:
    """Only noised counts leave. They are charged to the sites' ledgers. Asked again, no site is charged again."""
    coordinator = current_coordinator()
    with Watch(coordinator.folder, request.run) as watch:
        catch_up(coordinator, request.run, watch.missed)
        planned, finding, _ = await answered(coordinator, request, watch)
        with afterwards("the page of the evaluation", watch.missed):
            record_evaluation(coordinator, planned, read_again(coordinator, planned, finding.missing),
                              finding.totals if planned.plan.asks.slot is not None else ())
    return finding
