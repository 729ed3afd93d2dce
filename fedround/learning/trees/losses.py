"""How steep a task's loss is at a row: its first and second derivative by the model's output, and how long both can be.

A row adds (g, w h) to a leaf of each tree, where w is as large as it can be without making the row longer: so the curvatures
get less of the noise, at no cost.

* Two classes, p the chance of label 1: g = p - y, h = p (1 - p), w = √8. Then g² + w² h² <= 1. (For y = 0 it is p² (1 + 8
  (1-p)²), whose derivative 2p (1 + 8 (1-p)(1-2p)) is not below 0: (1-p)(1-2p) is nowhere below -1/8. y = 1 mirrors it.)
* K > 2 classes: g_k = p_k - y_k, h_k = p_k (1 - p_k), w = √2. Then |g|² + w² |h|² <= 2. (f(b) = b² (1 + 2 (1-b)²) is
  convex, because f'' = 6 - 24 b + 24 b² is not below 0, and f(0) = 0: so the classes other than the row's add up to f(1-p_y)
  at most, and the row's own is f(1-p_y), too. f grows, and f(1) = 1.)
* Numbers, counts and times have no such bound, or one that hardly a row comes near. A row that is longer than `Bound.length`
  is cut to it, its curvature with it: it counts for less, as an outlier does in Huber's loss.

N rows, K outputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedround.errors import ContractError
from fedround.learning.examples import TARGET, Arrays
from fedround.learning.tasks import Classify, Count, Regress, Survive, Task
from fedround.learning.tasks.regress import KNEE
from fedround.learning.tasks.survive import EVENT, TIME

Float64 = npt.NDArray[np.float64]

_LANES = 64
"""More numbers than any processor computes at once."""


@dataclass(frozen=True)
class Bound:
    """How long (g, curvature h) of one row can be in one tree."""

    curvature: float
    """w."""
    length: float


def outputs_of(task: Task) -> int:
    """K. Raises ContractError for a task that trees cannot learn."""
    match task:
        case Classify(classes=classes):
            return 1 if classes == 2 else classes
        case Regress() | Count():
            return 1
        case Survive(edges=edges):
            return len(edges)
        case _:
            raise ContractError(f"trees give numbers for each row, and {task.in_words} asks for more: take a model of "
                                "your own (build_model), or another task")


def bound_of(task: Task) -> Bound:
    """Of a task's rows."""
    match task:
        case Classify(classes=2):
            return Bound(math.sqrt(8), 1.0)
        case Regress(loss=loss, quantile=quantile):
            steepest = {"squared": 1.0, "huber": KNEE, "quantile": max(quantile, 1 - quantile)}[loss]
            return Bound(steepest / 2, steepest * math.sqrt(1.25))
        case Count(max=most):
            return Bound(0.5, math.sqrt(most) / 2)
        case Survive():
            return Bound(2.0, math.sqrt(2))
        case _:
            return Bound(math.sqrt(2), math.sqrt(2))


def slopes(task: Task, output_NK: Float64, targets: Arrays) -> tuple[Float64, Float64]:
    """G and h, (N, K) each; those of a row have the same bits wherever it stands."""
    rows = len(output_NK)
    place_M = np.arange(-(-rows // _LANES) * _LANES) % max(rows, 1)
    padded_MK, padded = output_NK[place_M], {name: array[place_M] for name, array in targets.items()}
    with np.errstate(over="ignore"):
        g_MK, h_MK = _slopes(task, padded_MK, padded)
    return g_MK[:rows], h_MK[:rows]


def _slopes(task: Task, output_MK: Float64, targets: Arrays) -> tuple[Float64, Float64]:
    match task:
        case Survive():
            chance_MK = 0.5 + 0.5 * np.tanh(output_MK / 2)
            place_M1 = np.searchsorted(np.array(task.edges, np.float32), targets[TIME], side="right")[:, None]
            interval_K = np.arange(len(task.edges))
            died_MK = (interval_K == place_M1) & (targets[EVENT] == 1)[:, None]
            known_MK = (interval_K < place_M1) | died_MK        # intervals that the row came through, and that of its event
            return (chance_MK - died_MK) * known_MK, chance_MK * (1 - chance_MK) * known_MK
        case Classify(classes=classes) if classes > 2:
            power_MK = np.exp(output_MK - output_MK.max(axis=1, keepdims=True))
            chance_MK = power_MK / power_MK.sum(axis=1, keepdims=True)
            return chance_MK - (targets[TARGET][:, None] == np.arange(classes)), chance_MK * (1 - chance_MK)
        case _:
            g_M, h_M = task.slopes(output_MK[:, 0], targets)
            return g_M[:, None], h_M[:, None]
