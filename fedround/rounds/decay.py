"""Which level of a rule a round has (`fedround.learning.decay`): from the agreed training, and what the rounds before it
told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedround.learning.decay import Decay, Plateau
from fedround.learning.spec import LocalTraining, Training
from fedround.learning.tasks import Task
from fedround.rounds.ending import ToldOfModel, has_settled
from fedround.statistics import Release


@dataclass(frozen=True)
class TrainedRound:
    """A committed round: how it was trained, and what its answers told of the model before it."""

    training: Training
    told: ToldOfModel | None
    """None: nothing that could be read through the noise."""


def decayed(agreed: Training, number: int, past: Sequence[TrainedRound]) -> Training:
    """The training of round `number`. past: the committed rounds of the run before it, in order; as many as the rule looks
    back suffice.

    Promised: the same for the same arguments; never a larger learning rate or more steps than were agreed. If the agreed
    training has changed, it begins at level 0.
    """
    if not isinstance(agreed, LocalTraining) or agreed.rule is None:
        return agreed
    if isinstance(agreed.rule, Decay):
        return at_level(agreed, (number - 1) // agreed.rule.every)
    level = None if not past else level_of(agreed, past[-1].training)
    if level is None:
        return agreed
    return at_level(agreed, level + _is_next_due(agreed.rule, past))


def _is_next_due(rule: Plateau, past: Sequence[TrainedRound]) -> bool:
    same = list[TrainedRound]()
    for one in reversed(past):
        if one.training != past[-1].training:
            break
        same.insert(0, one)
    return has_settled([one.told for one in same if one.told is not None], rule.patience)


def at_level(agreed: LocalTraining, level: int) -> LocalTraining:
    """The agreed training at a level of its rule."""
    if agreed.rule is None or level == 0:
        return agreed
    share = agreed.rule.share(level)
    if agreed.rule.of == "learning_rate":
        return agreed.model_copy(update={"learning_rate": float(f"{agreed.learning_rate * share:.6g}")})
    fewer = max(1, agreed.fewest_steps or 1, int(agreed.local_steps * share))
    return agreed if fewer == agreed.local_steps else agreed.model_copy(
        update={"local_steps": fewer, "covered": agreed.local_steps})


def level_of(agreed: LocalTraining, training: Training) -> int | None:
    """At which level of the agreed rule this training is; None: at none, since something else was agreed then."""
    if agreed.rule is None:
        return None
    return next((level for level in range(agreed.rule.last_level + 1) if at_level(agreed, level) == training), None)


def looks_at_scores(training: Training) -> bool:
    """Whether the training of the next round follows from what the sites' counts say of the model of this one."""
    return isinstance(training.rule, Plateau)


def told_by(task: Task, said: Iterable[Release]) -> ToldOfModel | None:
    """What all sites' noised counts say of a model together; None: nothing that can be read. Six digits, so that other
    processors find the same.
    """
    counts = list(said)
    metrics = task.metrics_of(counts) if counts else None
    value = None if metrics is None else metrics.known().get(task.headline)
    if value is None:
        return None
    margin = None if (found := task.margin_of(counts)) is None else found.of(task.headline)
    return ToldOfModel(_rounded(value), _rounded(margin or 0.0))


def _rounded(number: float) -> float:
    return float(f"{number:.6g}")
