"""Ask every site how good the run's last model is on the rows that it holds out. Nothing is trained or committed."""

from __future__ import annotations

from prefect import flow, get_client

from fedround.learning.evaluate import Metrics
from flows import steps
from flows.watch import Watch
from tasks.catch_up import catch_up
from tasks.collect import take_late
from tasks.coordinator import current_coordinator
from tasks.plan import RoundRequest
from tasks.report import record_evaluation


@flow(name="federated-evaluation", flow_run_name="{request.run}: evaluation at the sites", persist_result=False)
async def federated_evaluation(request: RoundRequest) -> Metrics | None:
    """Noised counts only; they are charged to the sites' ledgers like everything that leaves."""
    coordinator = current_coordinator()
    with Watch(coordinator.folder, request.run) as watch:
        catch_up(coordinator, request.run)
        planned = steps.plan_evaluation(coordinator, request)
        watch.plan(planned.plan)
        async with get_client() as client:
            invited = await steps.invite(planned)
            answers = await steps.collect(coordinator, planned, lambda among: invited.ended(client, among), watch.answers)
            await invited.close(client, set(answers.missing))
            answers = take_late(coordinator, planned, answers)
        return record_evaluation(coordinator, planned, answers)
