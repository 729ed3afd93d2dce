"""Ask every site to count something in its rows. Nothing is trained or committed."""

from __future__ import annotations

from prefect import flow

from fedround.records import Finding
from flows.alarm_events import failure_told
from flows.artifacts import show_finding
from flows.asked import answered
from flows.watch import Watch
from tasks.afterwards import afterwards
from tasks.ask import MeasurementRequest
from tasks.compare_groups import tell
from tasks.coordinator import current_coordinator


@flow(name="federated-measurement", flow_run_name="{request.run}: measurement at the sites", persist_result=False)
async def federated_measurement(request: MeasurementRequest) -> Finding:
    """Only noised counts leave. They are charged to the sites' ledgers. Asked again, no site is charged again."""
    coordinator = current_coordinator()
    with Watch(coordinator.folder, request.run) as watch, failure_told(coordinator, request.run):
        planned, finding, _ = await answered(coordinator, request, watch)
        with afterwards("the artifact of the measurement", watch.missed):
            await show_finding(finding)
        with afterwards("groups on the round's page", watch.missed):
            tell(coordinator, planned.parent.commit)
    return finding
