"""The weight of every member in a round: as agreed, or by the plan's fairness, from what the members' answers say."""

from __future__ import annotations

from collections.abc import Mapping

from fedround.federation import Federation
from fedround.records import Answer, Plan, SiteWeight
from fedround.rounds import server
from tasks.plan import Planned


def weights_of(planned: Planned, members: Federation, answers: Mapping[str, Answer]) -> dict[str, float]:
    """The weights of all members, by name. They follow from signed documents, so whoever has these finds the same. Where
    numbers are added up, a member counts as many rows as were agreed.

    answers: the admitted ones, by site.
    """
    terms, before = planned.plan.agreed, planned.parent.commit
    if terms.combine is not None:
        return {site.name: float(site.rows or 0) for site in members.sites}
    goes_on = before.agreed is not None and before.agreed.aggregation.fairness == terms.aggregation.fairness
    return server.weigh(terms, planned.plan.task, {site.name: site.weight for site in members.sites},
                        {site: answer.scores for site, answer in answers.items()},
                        {known.site: known.weight for known in before.weights} if goes_on else {})


def loss_of(planned: Planned, members: Federation, answer: Answer) -> float | None:
    """The base model's mean loss at a site, as a commit has it: where who is asked next depends on it."""
    if members.selection is None or not members.selection.looks_at_losses or answer.scores is None:
        return None
    return server.loss_at(planned.plan.task, answer.scores)


def to_commit(plan: Plan, weights: Mapping[str, float]) -> tuple[SiteWeight, ...]:
    """The weights as a commit has them: empty if they are the agreed ones."""
    if plan.agreed.aggregation.fairness is None:
        return ()
    return tuple(SiteWeight(site=site, weight=weight) for site, weight in sorted(weights.items()))
