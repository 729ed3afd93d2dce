"""What a commit says of its base model, where a rule changes the training by it (`fedround.rounds.decay`)."""

from __future__ import annotations

from collections.abc import Mapping

from fedround.records import Answer, Plan, Score
from fedround.rounds.decay import looks_at_scores, told_by
from fedround.rounds.tickets import ticket_of


def score_of(plan: Plan, answers: Mapping[str, Answer]) -> Score | None:
    """What a commit says of its base model at all sites, if the rule of the next round's training looks at it.

    answers: the admitted ones, by site; who answers an earlier plan tells of another model.
    """
    if not looks_at_scores(plan.agreed.training):
        return None
    told = told_by(plan.task, [said for site, answer in sorted(answers.items())
                               if (said := answer.scores) is not None and ticket_of(plan, site) is None])
    return None if told is None else Score(value=told.value, margin=told.margin)
