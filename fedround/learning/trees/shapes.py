"""What a model says of each feature by itself, where every tree asks about one only (`Trees.features_per_tree` = 1).

The output of a row is the sum of these shapes at the row's features (a generalised additive model, as the explainable
boosting of Nori et al. 2021, arXiv:2106.09680): a person can read all of the model from so many curves.

T trees, t of one feature, P places where a shape changes, Q = P + 1 pieces between them, L leaves, K outputs, N rows,
F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedround.codec import Tensors
from fedround.errors import ContractError
from fedround.learning.examples import Examples
from fedround.learning.tasks import Task
from fedround.learning.trees.losses import slopes
from fedround.learning.trees.outputs import features_of, grown, outputs
from fedround.learning.trees.spec import GROWN, LEAVES, Trees
from fedround.learning.trees.structure import Splits, blocks, leaves_of, splits

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Shape:
    """What is added to a row's outputs for its value x of one feature: piece q where edge q-1 < x <= edge q."""

    feature: int
    edge_P: Float32
    value_QK: Float64
    std_QK: Float64 | None
    """Of the noise in it; None: it is not known."""

    def at(self, x_N: Float32) -> Float64:
        """(N, K)."""
        return np.asarray(self.value_QK[self.edge_P.searchsorted(x_N, side="left")])


@dataclass(frozen=True)
class Named:
    """A shape with the name of its feature, and its public bounds."""

    name: str
    low: float
    high: float
    shape: Shape


def shapes(trees: Trees, model: Tensors, std_TLK: Float64 | None = None) -> tuple[Shape, ...]:
    """One for each feature that a grown tree asks about. std_TLK: of the noise in each leaf (`noise_in_leaves`).

    Promises: the model's outputs are the sums of the shapes, but for the order in which they are added. Raises ContractError
    if trees ask about several features: then no feature says anything by itself.
    """
    if trees.features_per_tree != 1:
        raise ContractError("these trees ask about several features each, so a feature has no shape by itself: a recipe says "
                            "features_per_tree = 1 for a model that can be read so")
    all_splits, count = splits(trees), grown(model)
    feature_T, found = all_splits.feature_TM[:count, 0], []
    leaf_TLK, noise_TLK = model[LEAVES].astype(np.float64), std_TLK
    for feature in np.unique(feature_T):
        own_t = np.flatnonzero(feature_T == feature)
        some = Splits(all_splits.feature_TM[own_t], all_splits.threshold_TM[own_t])
        edge_P = np.unique(some.threshold_TM)
        x_Q = np.append(edge_P, np.float32(np.inf))
        value_QK = _summed(some, leaf_TLK[own_t], int(feature), x_Q)
        variance_QK = None if noise_TLK is None else _summed(some, np.square(noise_TLK[own_t]), int(feature), x_Q)
        found.append(Shape(int(feature), edge_P, value_QK, None if variance_QK is None else np.sqrt(variance_QK)))
    return tuple(found)


def noise_in_leaves(trees: Trees, task: Task, model: Tensors, rows: Examples, std_R: Float64) -> Float64:
    """How far the noise of a round moved each leaf that it set, one standard deviation, (T, L, K).

    rows: public rows, which say how curved the loss was in a leaf; nobody published it. std_R: of the noise on each mean
    gradient, as `Steepness.length` has it, by round, after the sites' updates were combined.

    To first order: g and h of a leaf are noised apart, and what leaves add up to is as noisy as if they were independent.
    Later rounds see what the noise did, and take some of it back: so this is too large rather than too small.
    """
    features_NF, count, bound = features_of(rows), grown(model), task.steepness
    std_TLK = np.zeros((trees.trees, trees.leaves, model[LEAVES].shape[2]))
    output_NK: Float64 | None = None
    for number, first in enumerate(range(0, count, trees.per_round)):
        begun = {**model, GROWN: np.array([first], np.float32)}
        output_NK = outputs(trees, begun, features_NF, max(0, first - trees.per_round), output_NK)
        _, h_NK = slopes(task, output_NK, rows.targets)
        some = splits(trees).of(slice(first, first + trees.per_round))
        h_BLK = np.zeros((trees.per_round, trees.leaves, h_NK.shape[1]))
        for part in blocks(some, len(rows)):
            for tree, leaf_n in enumerate(leaves_of(some, features_NF[part])):
                for output in range(h_NK.shape[1]):
                    h_BLK[tree, :, output] += np.bincount(leaf_n, h_NK[part, output], trees.leaves)
        damped_BLK = h_BLK / len(rows) + trees.l2
        step_BLK = np.abs(model[LEAVES][first:first + trees.per_round]) / trees.learning_rate
        moved_BLK = np.hypot(1.0, step_BLK / bound.curvature) * (bound.length * std_R[number]) / damped_BLK
        std_TLK[first:first + trees.per_round] = trees.learning_rate * np.minimum(moved_BLK, trees.largest)
    return std_TLK


def _summed(some: Splits, leaf_tLK: Float64, feature: int, x_Q: Float32) -> Float64:
    """What trees about one feature add up to at each x, (Q, K)."""
    x_QF = np.zeros((len(x_Q), feature + 1), np.float32)
    x_QF[:, feature] = x_Q
    value_QK = np.zeros((len(x_Q), leaf_tLK.shape[2]))
    for part in blocks(some, len(x_Q)):
        for leaf_LK, leaf_q in zip(leaf_tLK, leaves_of(some, x_QF[part]), strict=True):
            value_QK[part] += leaf_LK[leaf_q]
    return value_QK
