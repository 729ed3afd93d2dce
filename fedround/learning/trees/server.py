"""The server's half of a round of trees: from the sites' mean slopes to the leaves.

B trees, L leaves, K outputs, P parts of a number.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fedround.codec import Tensors, schema_of, unflatten
from fedround.errors import ContractError
from fedround.learning.tasks import Task
from fedround.learning.trees.exact import mean
from fedround.learning.trees.outputs import grown
from fedround.learning.trees.spec import CURVATURES, GROWN, LEAVES, SLOPES, Trees
from fedround.learning.trees.structure import splits

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


def mean_of_sum(trees: Trees, total_D: Float64, rows: float) -> Float32:
    """The aggregate that `grow` takes, (D,): the mean over rows, from the sum that `trees.site.summand` is a part of.

    rows: how many were added up, all sites together, as agreed.
    """
    return (total_D * (math.sqrt(trees.per_round) / rows)).astype(np.float32)


def grow(trees: Trees, task: Task, model: Tensors, aggregate_D: Float32, weight: float | None, *,
         noised: bool) -> dict[str, Float32]:
    """The model with the round's trees in it.

    aggregate_D: what was made of the sites' updates. weight: of all sites whose mean it is; None: it is no mean. noised:
    whether they added noise. Raises ContractError if all trees have grown.
    """
    parts = unflatten(aggregate_D, trees.sent(schema_of(model), noised=noised))
    first, bound = grown(model), task.steepness
    if first + trees.per_round > trees.trees:
        raise ContractError(f"all {trees.trees} trees have grown: a recipe with more rounds would let more grow")
    g_BLK = bound.length * mean(parts[SLOPES], weight)
    h_BLK = bound.length / bound.curvature * mean(parts[CURVATURES], weight)
    step_BLK = np.clip(-g_BLK / (np.maximum(h_BLK, 0) + trees.l2), -trees.largest, trees.largest)
    _rise(trees, splits(trees).feature_TM[first:first + trees.per_round], step_BLK)
    leaves_TLK = model[LEAVES].copy()
    leaves_TLK[first:first + trees.per_round] = trees.learning_rate * step_BLK
    return {GROWN: np.array([first + trees.per_round], np.float32), LEAVES: leaves_TLK}


def _rise(trees: Trees, feature_BM: npt.NDArray[np.int64], step_BLK: Float64) -> None:
    """Cut the leaves so that the output rises, or falls, with the features of which it should (`Axis.rises`).

    From the root down, at each node that asks about such a feature: no leaf on its left is above the middle between the means
    of both sides, and none on its right below it. So in every tree a larger value leads to a leaf that is no lower.
    """
    rises_F = np.array([axis.rises for axis in trees.axes])
    if not rises_F.any():
        return
    rises_BM = rises_F[feature_BM]
    for depth in range(trees.depth):
        width = 1 << depth
        halves = step_BLK.reshape(len(step_BLK), width, 2, -1, step_BLK.shape[2])       # a view: nodes, sides, leaves
        sign = rises_BM[:, width - 1:2 * width - 1, None, None]
        middle = halves.mean(axis=3).mean(axis=2)[:, :, None]
        left, right = halves[:, :, 0], halves[:, :, 1]
        left[:] = np.where(sign > 0, np.minimum(left, middle), np.where(sign < 0, np.maximum(left, middle), left))
        right[:] = np.where(sign > 0, np.maximum(right, middle), np.where(sign < 0, np.minimum(right, middle), right))
