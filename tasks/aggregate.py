"""From admitted updates to one delta."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedround import codec
from fedround.aggregation.decide import Composition
from fedround.aggregation.engine import Aggregate, Standing
from fedround.aggregation.rows import Numbers, Row
from fedround.aggregation.sweep import Sweeper
from fedround.aggregation.verdict import Verdict
from fedround.errors import ContractError, QuorumError
from fedround.records import Answer, SiteMemory
from fedround.rounds import clusters, server, tickets
from fedround.rounds.clusters import picked_in
from fedround.rounds.server import Average, Combined
from fedround.spoken import how_many
from tasks.collected import Collected, Sum
from tasks.coordinator import Coordinator
from tasks.gather import of_regions
from tasks.memory import Shelf
from tasks.plan import Planned
from tasks.quorum import check_quorum, check_shown
from tasks.root import root_update
from tasks.spool import Workplace
from tasks.weights import weights_of


@dataclass(frozen=True, eq=False)
class Aggregated:
    """One delta, what became of every update, and what the coordinator may remember of them."""

    combined: Combined
    weights: Mapping[str, float]
    """What every member counted."""
    averages: Mapping[str, Average]
    """What the next round recalls, by site."""
    shelf: Shelf
    """Where these lie."""

    @property
    def result(self) -> Aggregate:
        """The delta, and how every update stands to it."""
        return self.combined.result

    @property
    def memory(self) -> tuple[SiteMemory, ...]:
        """What a commit says of the averages."""
        return self.shelf.said_of(self.averages)


def aggregate(coordinator: Coordinator, planned: Planned, collected: Collected,
              sweeper: Sweeper | None = None) -> Aggregated:
    """Apply the plan's gate, mixing and rule to the admitted updates, or to the sites' moving averages.

    sweeper: does the passes over the updates; None: this process does.
    The quorum counts the admitted updates. The aggregation may leave out at most what f liars can explain, so f liars do not
    stop a round. Raises QuorumError, and nothing is committed, if too few are admitted or too many are left out.
    """
    check_quorum(planned, collected)
    check_shown(coordinator, planned, collected)
    if collected.sum is not None:
        return of_sum(planned, collected.sum, collected.answers, weights_of(planned, coordinator.federation, {}),
                      Shelf(coordinator, planned))
    if collected.regional is not None:
        weights = weights_of(planned, coordinator.federation, collected.answers)
        paths = [part.path for part in collected.regional.parts]
        return Aggregated(of_regions(planned, paths, collected.regional.norms, weights), weights, {},
                          Shelf(coordinator, planned))
    rows = [admitted.row for admitted in collected.admitted.values() if admitted.row is not None]
    weights = weights_of(planned, coordinator.federation, collected.answers)
    root = root_update(coordinator, planned.plan, planned.digest)
    done = combine(coordinator, planned, rows, weights, root, coordinator.settings.memory_budget_mb << 20, collected.answers,
                   sweeper)
    _check_used(planned, done.result)
    return done


def of_sum(planned: Planned, sum_: Sum, answers: Mapping[str, Answer], weights: Mapping[str, float],
           shelf: Shelf) -> Aggregated:
    """What the sum of masked answers gives. Everybody in it is used; how one stands to the others, nobody knows."""
    delta_D, sites = sum_.read.delta_D, tuple(sorted(answers))
    if delta_D is None:
        raise ContractError(f"{planned.in_words}: no update was asked for")
    one = Standing(math.nan, math.nan, 1 / len(sites), Verdict.USED, "")
    result = Aggregate(delta_D, dict.fromkeys(sites, one), sites, np.zeros((0, 0)),
                       Composition(sites, np.full((1, len(sites)), 1 / len(sites)), None))
    return Aggregated(Combined(result, (), {}), weights, {}, shelf)


def combine(workplace: Workplace, planned: Planned, rows: Sequence[Row], weights: Mapping[str, float], root: Numbers | None,
            memory_budget_bytes: int, answers: Mapping[str, Answer], sweeper: Sweeper | None = None) -> Aggregated:
    """What the plan makes of these rows: the same bytes for the coordinator that commits and for the auditor who checks.

    answers: the rows' sites', by name; where sites choose among models, they say which.
    """
    plan, shelf = planned.plan, Shelf(workplace, planned)
    weighed = [dataclasses.replace(row, weight=weights[row.site] * tickets.share(plan, row.site)) for row in rows]
    if plan.agreed.clusters > 1:
        picked = {row.site: picked_in(plan, answers[row.site]) or 0 for row in rows}
        return Aggregated(clusters.combine_each(
            plan.agreed, plan.tensors, weighed, picked, seed=bytes.fromhex(planned.digest),
            memory_budget_bytes=memory_budget_bytes, sweeper=sweeper), weights, {}, shelf)
    memory = shelf.recall(planned)
    combined = server.combine(
        plan.agreed.aggregation, codec.coordinates(plan.sent), weighed, memory, shelf, seed=bytes.fromhex(planned.digest),
        root=root, memory_budget_bytes=memory_budget_bytes, sweeper=sweeper)
    return Aggregated(combined, weights, combined.remember(memory.averages), shelf)


def _check_used(planned: Planned, result: Aggregate) -> None:
    """Raises QuorumError that names who was left out and why."""
    plan = planned.plan
    left_out = {site: standing for site, standing in result.standings.items() if standing.verdict is not Verdict.USED}
    used = len(result.standings) - len(left_out)
    fewest = plan.agreed.aggregation.fewest_used(plan.quorum)
    if used < fewest:
        reasons = "; ".join(f"'{site}': {standing.verdict}" for site, standing in left_out.items())
        raise QuorumError(
            f"{planned.in_words}: {how_many(used, 'update', 'remains', 'remain')} of {len(result.standings)}, and of a "
            f"quorum of {plan.quorum} at least {fewest} must (left out: {reasons}). Nothing is committed; run the round "
            "again when more sites answer, or ask with a smaller quorum")
