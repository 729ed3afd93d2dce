"""The training that the next plan asks for, where a rule changes it from round to round (`fedround.rounds.decay`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fedround.learning.decay import Plateau
from fedround.learning.spec import LocalTraining, Training
from fedround.learning.tasks import Task
from fedround.records import Answer, Plan, Score
from fedround.rounds.decay import Trained, decayed
from fedround.rounds.ending import Told
from fedround.rounds.tickets import ticket_of
from fedround.statistics import Release
from tasks.reputation import Past


def training_after(agreed: Training, number: int, past: Sequence[Past]) -> Training:
    """The training of round `number`, after the committed rounds `past`, in their order: as many as the rule looks back."""
    return decayed(agreed, number, [
        Trained(one.commit.agreed.training, None if one.commit.score is None else Told(
            one.commit.score.value, one.commit.score.margin)) for one in past if one.commit.agreed is not None])


def score_of(plan: Plan, answers: Mapping[str, Answer]) -> Score | None:
    """What a commit says of its base model at all sites, if the rule of the next round's training looks at it.

    answers: the admitted ones, by site; who answers an earlier plan tells of another model. Six digits, so that other
    processors find the same.
    """
    training = plan.agreed.training
    if not isinstance(training, LocalTraining) or not isinstance(training.rule, Plateau):
        return None
    return _score(plan.task, [said for site, answer in sorted(answers.items())
                              if (said := answer.scores) is not None and ticket_of(plan, site) is None])


def _score(task: Task, told: Iterable[Release]) -> Score | None:
    said = list(told)
    metrics = task.metrics_of(said) if said else None
    value = None if metrics is None else metrics.known().get(task.headline)
    if value is None:
        return None
    margin = None if (found := task.margin_of(said)) is None else found.of(task.headline)
    return Score(value=_rounded(value), margin=_rounded(margin or 0.0))


def _rounded(number: float) -> float:
    return float(f"{number:.6g}")
