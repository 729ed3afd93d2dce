"""What follows a measurement of drift: it is judged, and an alarm is told to Prefect, where an automation may act on it."""

from __future__ import annotations

from prefect.events import emit_event

from fedround.drift.judge import Drift
from flows.asked import answered
from flows.watch import Watch
from tasks.ask import MeasurementRequest
from tasks.coordinator import Coordinator
from tasks.drift import due, judgements
from tasks.reporting.drift import in_a_sentence
from tasks.requests import RoundRequest

ALARM = "fedround.drift.alarm"


def resource_of(federation: str) -> str:
    """The resource by which an automation recognises the federation."""
    return f"fedround.federation.{federation}"


async def measured_when_due(coordinator: Coordinator, request: RoundRequest, number: int, watch: Watch) -> None:
    """Measure drift after a round, if the federation file says so for this round."""
    if (question := due(coordinator, request, number)) is not None:
        await measured(coordinator, question, watch)


async def measured(coordinator: Coordinator, question: MeasurementRequest, watch: Watch) -> Drift:
    """Ask all sites for the watched columns, and judge. Asked again, no site is charged again, and no alarm is told twice."""
    _, _, is_new = await answered(coordinator, question, watch)
    watch.stage("judge drift")
    drift = judgements(coordinator, question.run)[-1]
    if is_new and drift.is_alarm:
        tell(coordinator, question.run, drift)
    return drift


def tell(coordinator: Coordinator, run: str, drift: Drift) -> None:
    """An event with the judgement's numbers, and names that the federation file has. Nothing of any row."""
    emit_event(ALARM, resource={"prefect.resource.id": resource_of(coordinator.federation.name),
                                "prefect.resource.name": coordinator.federation.name},
               payload={"run": run, "when": drift.when, "next_run": next_run(run, drift.when),
                        "sentence": in_a_sentence(drift), **drift.numbers()})


def next_run(run: str, when: str) -> str:
    """A name for the campaign that an alarm calls for: the same for the same alarm."""
    return f"{run[:15].strip('-')}-after-{when.replace(' ', '-')}"[:40].strip("-")
