"""From admitted updates to one delta."""

from __future__ import annotations

from fedround import codec
from fedround.aggregation import engine
from fedround.aggregation.engine import Aggregate
from fedround.errors import QuorumError
from tasks.collect import Collected
from tasks.coordinator import Coordinator
from tasks.plan import Planned


def aggregate(coordinator: Coordinator, planned: Planned, collected: Collected) -> Aggregate:
    """Apply the plan's rule to the admitted updates. Raises QuorumError, and nothing is committed, if they are too few."""
    check_quorum(planned, collected)
    rows = [admitted.row for admitted in collected.admitted.values() if admitted.row is not None]
    return engine.aggregate(rows, planned.plan.rule, codec.coordinates(planned.plan.tensors),
                            memory_budget_bytes=coordinator.settings.memory_budget_mb << 20)


def check_quorum(planned: Planned, collected: Collected) -> None:
    """Raises QuorumError that says what became of everybody."""
    plan, admitted = planned.plan, len(collected.admitted)
    if admitted < plan.quorum:
        raise QuorumError(
            f"round {plan.round} of run '{plan.run}': {admitted} of {len(plan.cohort)} sites gave an update, the quorum "
            f"is {plan.quorum} (refused {len(collected.refused)}, not admitted {len(collected.rejected)}, "
            f"no answer {len(collected.missing)}). Nothing is committed; run the round again: answers that are there count")
