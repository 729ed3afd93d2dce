"""What the tests of trees share: public axes, made-up rows, and training without noise."""

from __future__ import annotations

import numpy as np

from fedround.codec import flatten
from fedround.learning.examples import INPUT, TARGET, Examples
from fedround.learning.tasks import CLASSIFY, Classify
from fedround.learning.trees.losses import outputs_of
from fedround.learning.trees.server import grow
from fedround.learning.trees.site import sums
from fedround.learning.trees.spec import GROWN, LEAVES, Axis, Trees
from fedround.privacy.spec import NoMechanism

F = 3
TREES = Trees(rounds=3, per_round=4, depth=3, learning_rate=0.3, l2=0.01,
              axes=(Axis(), Axis(low=-2, high=2), Axis(either=True)))
THREE = Classify(classes=3)


class Silent:
    """Noise that is not there: what is added up is seen."""

    def random(self, size):
        return np.zeros(size)

    def normal(self, scale, size):
        return np.zeros(size)


def rows(count: int, seed: int = 0, classes: int = 2) -> Examples:
    generator = np.random.default_rng(seed)
    features_NF = generator.normal(size=(count, F)).astype(np.float32)
    return Examples(features_NF, (generator.random(count) * classes).astype(np.int64))


def take(examples: Examples, places) -> Examples:
    return Examples(examples.inputs[INPUT][places], examples.targets[TARGET][places], examples.counts_N[places])


def nothing(task=CLASSIFY, trees: Trees = TREES):
    return {GROWN: np.zeros(1, np.float32), LEAVES: np.zeros((trees.trees, trees.leaves, outputs_of(task)), np.float32)}


def trained(parts: list[Examples], task=CLASSIFY, trees: Trees = TREES):
    """Without noise, every part a site that counts by its rows, as the engine's weighted mean has it."""
    model, weight_N = nothing(task, trees), np.array([len(part) for part in parts], float)
    for _ in range(trees.rounds):
        sent_ND = np.stack([flatten(sums(trees, task, model, part, NoMechanism(), Silent())) for part in parts])
        mean_D = (weight_N @ sent_ND.astype(float) / weight_N.sum()).astype(np.float32)
        model = grow(trees, task, model, mean_D, weight_N.sum(), noised=False)
    return model
