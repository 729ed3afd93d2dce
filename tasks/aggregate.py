"""From admitted updates to one delta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedround import codec
from fedround.aggregation import engine
from fedround.aggregation.engine import Aggregate
from fedround.aggregation.rows import Numbers, Row
from fedround.aggregation.sweep import Sweeper
from fedround.aggregation.verdict import Verdict
from fedround.errors import QuorumError
from tasks.collect import Collected
from tasks.coordinator import Coordinator
from tasks.memory import Remembered, flat_schema, numbers, recall, remember
from tasks.plan import Planned
from tasks.root import root_update
from tasks.spool import Bench
from tasks.weights import reweigh, weights_of


@dataclass(frozen=True, eq=False)
class Aggregated:
    """One delta, what became of every update on the way, and what the coordinator may remember of them."""

    result: Aggregate
    remembered: Mapping[str, Remembered]
    """By site, where a history is agreed; a site that was left out has one too, which is not kept."""


def aggregate(coordinator: Coordinator, planned: Planned, collected: Collected,
              sweeper: Sweeper | None = None) -> Aggregated:
    """Apply the plan's gate, mixing and rule to the admitted updates, or to the sites' moving averages.

    sweeper: who goes over the updates; this process if it is None.

    Raises QuorumError, and nothing is committed, if too few are admitted, or too few of these are used.
    """
    check_quorum(planned, collected)
    rows = [admitted.row for admitted in collected.admitted.values() if admitted.row is not None]
    weights = weights_of(planned.plan, planned.parent.commit, coordinator.federation, collected.updates)
    done = combine(coordinator, planned, reweigh(rows, weights), root_update(coordinator, planned.plan, planned.digest),
                   coordinator.settings.memory_budget_mb << 20, sweeper)
    _check_used(planned, done.result)
    return done


def combine(bench: Bench, planned: Planned, rows: Sequence[Row], root: Numbers | None, memory_budget_bytes: int,
            sweeper: Sweeper | None = None) -> Aggregated:
    """What the plan makes of these rows: the same bytes for the coordinator that commits and for the auditor who checks."""
    plan, remembered = planned.plan, dict[str, Remembered]()
    if plan.aggregation.history > 0:
        past = recall(planned)
        remembered = {row.site: remember(bench, planned, row, past.get(row.site)) for row in rows}
        rows = [new.row for new in remembered.values()]
    coordinates, centre = codec.coordinates(plan.tensors), planned.parent.commit.centre
    result = engine.aggregate(
        rows, plan.aggregation, coordinates, seed=bytes.fromhex(planned.digest), memory_budget_bytes=memory_budget_bytes,
        centre=None if centre is None else numbers(bench, centre, flat_schema("centre", coordinates)),
        root=root, sweeper=sweeper)
    return Aggregated(result, remembered)


def check_quorum(planned: Planned, collected: Collected) -> None:
    """Raises QuorumError that says what became of everybody."""
    plan, admitted = planned.plan, len(collected.admitted)
    if admitted < plan.quorum:
        raise QuorumError(
            f"round {plan.round} of run '{plan.run}': {admitted} of {len(plan.cohort)} sites gave an update, the quorum "
            f"is {plan.quorum} (refused {len(collected.refused)}, not admitted {len(collected.rejected)}, "
            f"no answer {len(collected.missing)}). Nothing is committed; run the round again: answers that are there count")


def _check_used(planned: Planned, result: Aggregate) -> None:
    """Raises QuorumError that names who was left out and why."""
    plan = planned.plan
    left_out = {site: standing for site, standing in result.standings.items() if standing.verdict is not Verdict.USED}
    used = len(result.standings) - len(left_out)
    if used < plan.quorum:
        reasons = "; ".join(f"'{site}': {standing.verdict}" for site, standing in left_out.items())
        raise QuorumError(
            f"round {plan.round} of run '{plan.run}': {used} updates remain of {len(result.standings)}, the quorum is "
            f"{plan.quorum} (left out: {reasons}). Nothing is committed; run the round again when more sites answer, or ask "
            "with a smaller quorum")
