"""From the mean gradient of a step to the change of the weights: the local algorithm, then the local optimizer.

Legend: T steps of a round, t = 1 … T; D coordinates; … stands for any leading dimensions (a simulator stacks sites).

Whatever stands here works on gradients that are noised already, and on what is public or was released before: it is
post-processing, and no mechanism's cost depends on it (Dwork and Roth 2014, proposition 2.1).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fedround.learning.spec import LocalTraining

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

_BETA1, _BETA2, _TINY = 0.9, 0.999, 1e-8      # of Adam, as published


class Descent:
    """The steps of one round, from a base model.

    shift_D: what the algorithm adds to every gradient (`LocalAlgorithm.shift`); None is zeros.
    """

    def __init__(self, training: LocalTraining, base_D: Float32, shift_D: Float32 | None = None):
        self._training, self._base_D, self._shift_D = training, base_D, shift_D
        self._moved: Float64 | float = 0.0
        self._squared: Float64 | float = 0.0
        self._step = 0

    def change(self, weights_D: Float32, gradient_D: Float64) -> Float32:
        """What to add to the weights after a step whose mean gradient at `weights_D` is `gradient_D`; both (…, D)."""
        training = self._training
        self._step += 1
        if training.algorithm.pull > 0:
            gradient_D = gradient_D + training.algorithm.pull * (weights_D - self._base_D)
        if self._shift_D is not None:
            gradient_D = gradient_D + self._shift_D
        if training.optimizer == "sgd":
            self._moved = direction_D = training.momentum * self._moved + gradient_D
        else:
            self._moved = _BETA1 * self._moved + (1 - _BETA1) * gradient_D
            self._squared = _BETA2 * self._squared + (1 - _BETA2) * gradient_D ** 2
            direction_D = self._moved / (1 - _BETA1 ** self._step) / (
                (self._squared / (1 - _BETA2 ** self._step)) ** 0.5 + _TINY)
        change_D: Float32 = (training.learning_rate * direction_D).astype(np.float32)
        return -change_D


def counts(training: LocalTraining, steps: int) -> list[float]:
    """How much each step's gradient counts in the change of `steps` steps of SGD, (T,): the change is
    -learning_rate sum_t counts[t] g_t, plus what the algorithm's shift brings.

    Plain steps count 1 each; momentum mu makes 1 + mu + … + mu^(T-t), the proximal term (1 - learning_rate mu)^(T-t).
    """
    pull = training.learning_rate * training.algorithm.pull
    moved, velocity, after = 0.0, 1.0, list[float]()      # of a gradient of 1, in learning rates, after 1, 2, … steps
    for _ in range(steps):
        moved += velocity
        after.append(moved)
        velocity = training.momentum * velocity - pull * moved
    return after[::-1]


def scale(training: LocalTraining, steps: int) -> float:
    """What a change of `steps` steps is multiplied by before it leaves: 1, or FedNova's ratio if the plan normalises."""
    if training.partial != "normalise" or steps == training.local_steps:
        return 1.0
    return math.fsum(counts(training, training.local_steps)) / math.fsum(counts(training, steps))
