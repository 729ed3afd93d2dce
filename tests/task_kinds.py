"""One of every kind of task, a model for it, and rows of it."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from torch import nn

from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe, initial_tensors
from fedround.learning.tasks import Classify, Count, Maximise, NextToken, Regress, Scored, Several, Survive, Tag
from fedround.privacy.noise import stream
from fedround.statistics import LocalEvaluation, Release, release

LENGTH = 6


class Parts(nn.Module):
    """The outputs that a task asks for, from three numbers for each row."""

    def __init__(self, **widths: int):
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(3, width) for name, width in widths.items()})

    def forward(self, x):
        return {name: head(x) for name, head in self.heads.items()}


def places(labels: int) -> nn.Module:
    return nn.Sequential(nn.Linear(3, LENGTH * labels), nn.Unflatten(1, (LENGTH, labels)))


KINDS = {
    "two": (Classify(), lambda: nn.Linear(3, 1)),
    "four": (Classify(classes=4), lambda: nn.Linear(3, 4)),
    "squared": (Regress(bounds=(-10, 30)), lambda: nn.Linear(3, 1)),
    "huber": (Regress(bounds=(-10, 30), loss="huber"), lambda: nn.Linear(3, 1)),
    "quantile": (Regress(bounds=(-10, 30), loss="quantile", quantile=0.9), lambda: nn.Linear(3, 1)),
    "count": (Count(max=20), lambda: nn.Linear(3, 1)),
    "survive": (Survive(edges=(1, 2, 4)), lambda: nn.Linear(3, 3)),
    "tag": (Tag(tags=4), lambda: places(4)),
    "token": (NextToken(vocabulary=9), lambda: places(9)),
    "several": (Several(main="stay", heads={"ill": Classify(), "stay": Count(max=9), "kind": Classify(classes=3),
                                            "life": Survive(edges=(1, 2))}), lambda: Parts(ill=1, stay=1, kind=3, life=2)),
    "gaps": (Several(main="stay", may_miss=("ill", "life"), heads={"ill": Classify(), "stay": Count(max=9),
                                                                   "life": Survive(edges=(1, 2))}),
             lambda: Parts(ill=1, stay=1, life=2)),
    "most": (Maximise(bounds=(-1, 4)), lambda: nn.Linear(3, 1)),
}
every = pytest.mark.parametrize("kind", KINDS)


def recipe_of(kind: str) -> Recipe:
    task, model = KINDS[kind]
    return Recipe(kind, "0" * 64, model, lambda rows: rows, task)


def rows_of(kind: str, count: int = 40, seed: int = 0) -> Examples:
    task = KINDS[kind][0]
    x = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    like = Examples(x, np.zeros((count, LENGTH), np.int64)).form.targets
    return Examples(x, task.made_up(count, like))


class Told:
    def __init__(self, task, scored):
        self._task, self._scored = task, scored

    def scores(self):
        return self._scored.numbers

    def summands(self):
        return self._task.summands(self._scored)


@functools.cache
def judged(kind: str, count: int) -> Scored:
    recipe = recipe_of(kind)
    return scores(recipe, initial_tensors(recipe, 1), rows_of(kind, count))


def told_of(kind: str, noise_std: float = 0.0, count: int = 40, seed: int = 0) -> tuple[Release, Scored]:
    recipe, scored = recipe_of(kind), judged(kind, count)
    statistic, noise = recipe.task.statistic(LocalEvaluation(bins=20, noise_std=noise_std)), stream(bytes(32), b"%d" % seed)
    return release(statistic, Told(recipe.task, scored), noise), scored
