"""Count what the federation watches, once more, and say what has drifted. Nothing is trained or committed."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import flow

from flows.alarm_events import failure_told
from flows.artifacts import show_drift
from flows.drift import measured
from flows.watch import Watch
from tasks.afterwards import afterwards
from tasks.coordinator import current_coordinator
from tasks.drift import DriftRequest, question
from tasks.reporting.drift import in_a_sentence


@flow(name="federated-drift", flow_run_name="{request.run}: drift", persist_result=False)
async def federated_drift(request: DriftRequest) -> str:
    """Only noised counts leave, of one partition's rows if the federation tells them apart. They are charged to the sites'
    ledgers. Asked again, no site is charged again.
    """
    coordinator = current_coordinator()
    with Watch(coordinator.folder, request.run) as watch, failure_told(coordinator, request.run):
        drift = await measured(coordinator, question(coordinator, request, datetime.now(UTC).date()), watch)
        with afterwards("the artifact of the drift", watch.missed):
            await show_drift(request.run, drift)
    return in_a_sentence(drift)
