"""An exchange between two members, step by step. No row moves, and the coordinator reads nothing of what they send."""

from __future__ import annotations

from prefect import flow

from flows import steps
from flows.alarm_events import failure_told
from flows.asked import asked
from flows.watch import Watch
from tasks.coordinator import current_coordinator
from tasks.joins import JoinRequest, begun_anew, next_step


@flow(name="federated-join", flow_run_name="{request.run}: {request.labels} and {request.features}", persist_result=False)
async def federated_join(request: JoinRequest) -> int:
    """Every step is a question of its own. Asked again, an exchange goes on where it stopped. Returns how many were asked."""
    coordinator, done = current_coordinator(), 0
    with Watch(coordinator.folder, request.run) as watch, failure_told(coordinator, request.run):
        while (planned := next_step(coordinator, request)) is not None:
            request = begun_anew(request)
            _, answers = await asked(coordinator, planned, watch)
            steps.conclude(coordinator, planned, answers)
            done += 1
    return done
