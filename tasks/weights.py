"""What every member counts in a round: as agreed, or by the plan's fairness, from what the members' answers say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from fedround.aggregation import fairness
from fedround.aggregation.rows import Row
from fedround.agreement import Federation
from fedround.records import Commit, Plan, SiteWeight, Update


def weights_of(plan: Plan, parent: Commit, members: Federation, updates: Mapping[str, Update]) -> dict[str, float]:
    """By name, of all members; a function of signed documents, so whoever has them finds the same.

    parent: the commit that the plan continues. updates: the admitted ones, by site.
    """
    agreed = {site.name: site.weight for site in members.sites}
    how = plan.aggregation.fairness
    if how is None:
        return agreed
    losses = {site: None if update.evaluation is None else fairness.loss(update.evaluation, plan.classes, plan.score_edges)
              for site, update in updates.items()}
    goes_on = parent.aggregation is not None and parent.aggregation.fairness == how
    past = {known.site: known.weight for known in parent.weights} if goes_on else {}
    return fairness.fair_weights(how, agreed, losses, past)


def reweigh(rows: Sequence[Row], weights: Mapping[str, float]) -> list[Row]:
    """The rows with these weights."""
    return [dataclasses.replace(row, weight=weights[row.site]) for row in rows]


def to_commit(plan: Plan, weights: Mapping[str, float]) -> tuple[SiteWeight, ...]:
    """What a commit says of the weights: nothing where they are the agreed ones."""
    if plan.aggregation.fairness is None:
        return ()
    return tuple(SiteWeight(site=site, weight=weight) for site, weight in sorted(weights.items()))
