"""From the mean gradient of a step to the change of the weights: the local algorithm, then the local optimizer.

Legend: T steps of a round, t = 1 … T; D coordinates; … stands for any leading dimensions (a simulator stacks sites).

Whatever stands here works on gradients that are noised already, and on what is public or was released before: it is
post-processing, and no mechanism's cost depends on it (Dwork and Roth 2014, proposition 2.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fedround.learning.spec import LocalTraining

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

_BLOCK = 1 << 16
_BETA1, _BETA2, _TINY = 0.9, 0.999, 1e-8      # of Adam, as published


class Descent:
    """The steps of one round, from a base model.

    base_D: is not looked at where the algorithm pulls to nothing. shift_D: what the algorithm adds to every gradient
    (`LocalAlgorithm.shift`); None is zeros.
    """

    def __init__(self, training: LocalTraining, base_D: Float32, shift_D: Float32 | None = None):
        self._training, self._base_D, self._shift_D = training, base_D, shift_D
        self._moved: Float64 | None = None
        self._squared: Float64 | None = None
        self._step = 0

    def change(self, weights_D: Float32, gradient_D: Float32 | Float64, rows: float | None = None) -> Float32:
        """What to add to the weights after a step whose mean gradient at `weights_D` is `gradient_D`; both (…, D).

        rows: so many rows' sum it is instead; it is divided in double precision.
        """
        change_D = np.empty(gradient_D.shape, np.float32)
        for block, change_B in self._changes(weights_D, gradient_D, rows):
            change_D[block] = change_B
        return change_D

    def move(self, weights_D: Float32, gradient_D: Float32 | Float64, rows: float | None = None) -> None:
        """Add the same to the weights, in place."""
        for block, change_B in self._changes(weights_D, gradient_D, rows):
            weights_D[block] += change_B

    def _changes(self, weights_D: Float32, gradient_D: Float32 | Float64,
                 rows: float | None) -> Iterator[tuple[Any, Float32]]:
        training = self._training
        self._step += 1
        remembers = training.optimizer != "sgd" or training.momentum != 0
        if self._moved is None and remembers:
            self._moved = np.zeros(gradient_D.shape)
            self._squared = np.zeros(gradient_D.shape) if training.optimizer != "sgd" else None
        for start in range(0, gradient_D.shape[-1], _BLOCK):      # the numbers in between stay in the processor's cache
            block = ..., slice(start, start + _BLOCK)
            gradient_B = gradient_D[block] if rows is None else np.divide(gradient_D[block], rows, dtype=np.float64)
            yield block, -(training.learning_rate * self._direction(block, weights_D[block], gradient_B)).astype(np.float32)

    def _direction(self, block: Any, weights_B: Float32, gradient_B: Float32 | Float64) -> Float32 | Float64:
        training = self._training
        if training.algorithm.pull > 0:
            gradient_B = gradient_B + training.algorithm.pull * (weights_B - self._base_D[block])
        if self._shift_D is not None:
            gradient_B = gradient_B + self._shift_D[block]
        if self._moved is None:
            plain_B: Float32 | Float64 = 0.0 + gradient_B         # as a momentum of zero makes it: -0 becomes 0
            return plain_B
        if self._squared is None:
            moved_B: Float64 = training.momentum * self._moved[block] + gradient_B
            self._moved[block] = moved_B
            return moved_B
        self._moved[block] = moved_B = _BETA1 * self._moved[block] + (1 - _BETA1) * gradient_B
        self._squared[block] = squared_B = _BETA2 * self._squared[block] + (1 - _BETA2) * gradient_B ** 2
        direction_B: Float64 = moved_B / (1 - _BETA1 ** self._step) / (
            (squared_B / (1 - _BETA2 ** self._step)) ** 0.5 + _TINY)
        return direction_B


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
