"""What the coordinator tells Prefect of things that a person should know: events, which automations act on.

They name the federation, a run, a round and a site, and hold nothing of any row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.events import emit_event

from fedround.errors import FedroundError
from fedround.records import Plan
from fedround.rounds.tickets import ended
from fedround.spoken import one_line
from tasks.collected import Collected
from tasks.coordinator import Coordinator
from tasks.reporting import RoundRecord

LATE, REJECTED, FORGED = "fedround.site.late", "fedround.answer.rejected", "fedround.answer.forged"
FAILED, BUDGET = "fedround.round.failed", "fedround.budget.nearly-spent"
LABEL = "fedround.federation"
NEARLY = 0.9
"""The share of a campaign's epsilon from which on it is nearly spent."""


def tell_answers(coordinator: Coordinator, plan: Plan, answers: Collected) -> None:
    """Who did not answer in time, and whose answers do not hold."""
    paced = plan.agreed.pace is not None and plan.asks.makes_model
    for site in [ticket.site for ticket in ended(plan, answers.missing)] if paced else answers.missing:
        _tell(coordinator, LATE, site, run=plan.run, round=plan.round)
    for site, rejection in answers.rejected.items():
        _tell(coordinator, REJECTED, site, run=plan.run, round=plan.round, reason=rejection.reason)
        if site in answers.forged:
            _tell(coordinator, FORGED, site, run=plan.run, round=plan.round, reason=rejection.reason)


def tell_budgets(coordinator: Coordinator, record: RoundRecord) -> None:
    """Which sites have spent nearly all that the campaign promised."""
    for row in record.sites:
        if record.epsilon_limit is not None and row.epsilon is not None and row.epsilon >= NEARLY * record.epsilon_limit:
            _tell(coordinator, BUDGET, row.site, run=record.run, round=record.round, epsilon=row.epsilon,
                  limit=record.epsilon_limit)


@contextmanager
def failure_told(coordinator: Coordinator, run: str) -> Iterator[None]:
    """If what is done here fails, tell it."""
    try:
        yield
    except Exception as error:
        _tell(coordinator, FAILED, None, run=run,
              problem=str(error) if isinstance(error, FedroundError) else type(error).__name__)
        raise


def _tell(coordinator: Coordinator, event: str, site: str | None, **payload: object) -> None:
    """A reason may quote a key that a site has chosen, and goes into a person's mail."""
    name = coordinator.federation.name
    who = f"fedround.federation.{name}" + ("" if site is None else f".{site}")
    said = {key: one_line(value) if isinstance(value, str) else value for key, value in payload.items()}
    emit_event(event, payload=said, resource={
        "prefect.resource.id": who, "prefect.resource.name": site or name, LABEL: name})
