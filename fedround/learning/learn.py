"""A site's half of learning, whichever learner the plan names."""

from __future__ import annotations

from typing import assert_never

from fedround.errors import ContractError
from fedround.learning.foreign.site import Elsewhere, change
from fedround.learning.foreign.spec import Foreign
from fedround.learning.guard import Guard
from fedround.learning.lesson import Lesson
from fedround.learning.recipe import Recipe
from fedround.learning.spec import LocalTraining, Training
from fedround.learning.train import Trained, train
from fedround.learning.trees.site import sums
from fedround.learning.trees.spec import Trees
from fedround.learning.union.spec import UnionStep
from fedround.privacy.noise import NoiseSource
from fedround.privacy.spec import TrainingMechanism
from fedround.spoken import how_many


def learn(recipe: Recipe, lesson: Lesson, training: Training, mechanism: TrainingMechanism, noise: NoiseSource, guard: Guard,
          *, elsewhere: Elsewhere | None = None) -> Trained:
    """What the site sends: how gradient steps changed the model (`train.train`), how steep the loss is in the leaves of the
    next trees (`trees.site.sums`), or how a foreign client changed the model (`foreign.site.change`). All say what is
    promised. elsewhere: where such a client runs.

    Raises ContractError if the recipe is for another learner than the plan's.
    """
    check_learner(recipe, training)
    match training:
        case LocalTraining():
            return train(recipe, lesson, training, mechanism, noise, guard)
        case Trees():
            recipe.check(lesson.examples)
            summed = sums(training, recipe.task, lesson.base, lesson.examples, mechanism, noise, lesson.persons)
            return Trained(summed, None, training.local_steps)
        case Foreign():
            if elsewhere is None:
                raise ContractError("a foreign client runs at the sites alone: nothing trains it here")
            return Trained(change(lesson.base, elsewhere, mechanism, noise), None, training.local_steps)
        case UnionStep():
            raise ContractError("the learner 'union_step' sends no update of one site: agree on combine, and ask for its "
                                "summand")
        case _:
            assert_never(training)


def check_learner(recipe: Recipe, training: Training) -> None:
    """Raise ContractError if the plan's learner is not the recipe's (the one that was read and approved), or weighs labels
    that the recipe does not have.
    """
    said, agreed = recipe.learner, None if training.in_recipes is None else training
    if said != agreed:
        raise ContractError(f"recipe '{recipe.name}' " + (
            f"says no {training.in_recipes}, and the federation agreed on that" if said is None else
            f"says {said.in_recipes}, and the federation agreed on another learner, or on that with other settings")
            + ": make the federation file from this recipe")
    if not training.class_weights:
        return
    if len(training.class_weights) != recipe.task.labels:
        raise ContractError(f"training.class_weights has {how_many(len(training.class_weights), 'weight')}, and recipe "
                            f"'{recipe.name}' learns {recipe.task.in_words}: give one weight for each label, or none")
