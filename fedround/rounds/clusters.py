"""The server's half of rounds in which sites choose among K models: every model's updates are aggregated by themselves.

A site's model follows from its answer (`fedround.learning.clusters.chosen`). So whoever has the answers aggregates the same
updates for the same model, and an update moves no other one.

D coordinates of an update.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fedround import codec
from fedround.aggregation import engine
from fedround.aggregation.decide import Composition
from fedround.aggregation.engine import Aggregate, Standing
from fedround.aggregation.rows import Row
from fedround.aggregation.sweep import Sweeper
from fedround.aggregation.verdict import Verdict
from fedround.codec import Schema, Tensors
from fedround.errors import ToleranceError
from fedround.learning.clusters import chosen, together
from fedround.records import Answer, Plan
from fedround.rounds.server import Combined
from fedround.statistics import Release
from fedround.terms import Terms


def picked_in(plan: Plan, answer: Answer) -> int | None:
    """Which of the plan's models an answer's update is of; None: there is one for all."""
    return chosen(plan.agreed.clusters, plan.task, answer.releases)


def scores_in(plan: Plan, answer: Answer) -> Release | None:
    """What a site says of the plan's model; of several, of the one that it chose."""
    return answer.scores if (cluster := picked_in(plan, answer)) is None else answer.releases[cluster]


def combine_each(terms: Terms, models: Schema, rows: Sequence[Row], picked: Mapping[str, int], *, seed: bytes,
                 memory_budget_bytes: int = 64 << 20, sweeper: Sweeper | None = None) -> Combined:
    """One delta of all models, from each one's own updates. models: as they travel. picked: the model of every row's site.

    A model that nobody chose stays as it is. So does one with fewer updates than the rule bears: they are left out, and the
    others' go on. The theorems count each model's updates: f liars who choose the same model are f of its updates.
    Raises ContractError as `engine.aggregate` does.
    """
    how, one = terms.aggregation, terms.sent(models)
    deltas, notes, standings = list[Tensors](), list[str](), dict[str, Standing]()
    for cluster in range(terms.clusters):
        own = [row for row in rows if picked[row.site] == cluster]
        delta_D = np.zeros(codec.coordinates(one), np.float32)
        try:
            if own:
                done = engine.aggregate(own, how, len(delta_D), seed=seed, memory_budget_bytes=memory_budget_bytes,
                                        sweeper=sweeper)
                delta_D = done.delta_D
                standings |= done.standings
                notes += [f"model {cluster}: {done.note}"] if done.note else []
        except ToleranceError as error:
            standings |= {row.site: Standing(math.nan, math.nan, 0.0, Verdict.FEW, str(error)) for row in own}
            notes.append(f"model {cluster} stays as it is: {error}")
        deltas.append(codec.unflatten(delta_D, one))
    result = Aggregate(codec.flatten(together(deltas)), dict(sorted(standings.items())), (), np.zeros((0, 0)),
                       Composition((), np.zeros((1, 0)), None), "; ".join(notes))
    return Combined(result, tuple(rows), {})
