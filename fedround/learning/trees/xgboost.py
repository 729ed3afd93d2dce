"""A model of trees as the JSON that XGBoost reads: for its predictions, SHAP, and tools that know its models.

Scores are equal but for the order in which float32 numbers are added. XGBoost goes to the left below a threshold, and these
trees up to it: so the threshold that is written is the next float32 number.

Its predictions are what the model's answers are made of: the chance of label 1; of each class; the number, or the mean; the
chance that an event happens in each interval, if it has not happened before.

T trees, M inner nodes, K outputs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedround.codec import Tensors
from fedround.errors import ContractError
from fedround.learning.tasks import Classify, Count, Regress, Survive, Task
from fedround.learning.trees.outputs import grown
from fedround.learning.trees.spec import LEAVES, Trees
from fedround.learning.trees.structure import splits

_FORBIDDEN = str.maketrans({"[": "(", "]": ")", "<": "lt"})
_NOBODY = 2147483647
_VERSION = [3, 2, 0]


def to_xgboost(trees: Trees, task: Task, model: Tensors, names: Sequence[str] = ()) -> bytes:
    """The trees that have grown; one of XGBoost's for each output of each tree.

    names: of the features, in their order; XGBoost allows no "[", "]" and "<" in them, and gets "(", ")" and "lt".

    A number that is beyond what is possible (`Regress.bounds`, `Count.max`) is not cut to it: XGBoost knows no bounds.

    How many rows passed a node is not known, and nobody was asked: it is told as if every row lay anywhere between the public
    bounds alike. (XGBoost's own SHAP values weigh by that; those of `shap` with background rows do not need it.)
    """
    count, outputs = grown(model), model[LEAVES].shape[2]
    share_TN, says = _shares(trees), _said(task)
    made = [_tree(trees, model[LEAVES][tree, :, output] * np.float32(says.scale), tree, place, share_TN[tree])
            for place, (tree, output) in enumerate(np.ndindex(count, outputs))]
    learner = {
        "attributes": {}, "feature_names": [name.translate(_FORBIDDEN) for name in names],
        "feature_types": ["float"] * len(names),
        "gradient_booster": {"name": "gbtree", "model": {
            "cats": {"enc": [], "feature_segments": [], "sorted_idx": []},
            "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(len(made))},
            "iteration_indptr": [outputs * tree for tree in range(count + 1)],
            "tree_info": [place % outputs for place in range(len(made))], "trees": made}},
        "learner_model_param": {"base_score": f"[{','.join(f'{says.base:E}' for _ in range(outputs))}]",
                                "boost_from_average": "0", "num_feature": str(len(trees.axes)),
                                "num_class": str(outputs if says.classes else 0),
                                "num_target": str(1 if says.classes else outputs)},
        "objective": says.objective}
    return json.dumps({"learner": learner, "version": _VERSION}, separators=(",", ":")).encode()


@dataclass(frozen=True)
class _Said:
    """What XGBoost calls a task."""

    objective: dict[str, Any]
    base: float
    """Its prediction where all leaves are 0."""
    scale: float = 1.0
    """Of the leaves."""
    classes: bool = False
    """Whether the outputs are classes, of which one is right."""


def _said(task: Task) -> _Said:
    weighed = {"reg_loss_param": {"scale_pos_weight": "1"}}
    match task:
        case Classify(classes=classes) if classes > 2:
            wanted = {"softmax_multiclass_param": {"num_class": str(classes)}}
            return _Said({"name": "multi:softprob", **wanted}, 0.0, classes=True)
        case Regress(bounds=(low, high)):
            return _Said({"name": "reg:squarederror", **weighed}, (low + high) / 2, (high - low) / 2)
        case Count():
            return _Said({"name": "count:poisson", "poisson_regression_param": {"max_delta_step": "0.7"}}, 1.0)
        case Classify() | Survive():
            return _Said({"name": "binary:logistic", **weighed}, 0.5)
        case _:
            raise ContractError(f"XGBoost has no objective for {task.in_words}")


def _tree(trees: Trees, leaf_L: np.ndarray[Any, Any], tree: int, place: int, share_N: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Nodes in breadth-first order, inner ones first, leaves after them."""
    inner, found = trees.leaves - 1, splits(trees)
    threshold_M = np.nextafter(found.threshold_TM[tree], np.float32(np.inf))
    nodes, padding = inner + trees.leaves, [0] * trees.leaves
    return {
        "base_weights": [0.0] * inner + leaf_L.tolist(), "categories": [], "categories_nodes": [], "categories_segments": [],
        "categories_sizes": [], "default_left": [0] * nodes, "id": place,
        "left_children": [2 * node + 1 for node in range(inner)] + [-1] * trees.leaves,
        "right_children": [2 * node + 2 for node in range(inner)] + [-1] * trees.leaves,
        "loss_changes": [0.0] * nodes, "parents": [_NOBODY] + [(node - 1) // 2 for node in range(1, nodes)],
        "split_conditions": threshold_M.tolist() + leaf_L.tolist(),
        "split_indices": found.feature_TM[tree].tolist() + padding, "split_type": [0] * nodes,
        "sum_hessian": share_N.tolist(),
        "tree_param": {"num_deleted": "0", "num_feature": str(len(trees.axes)), "num_nodes": str(nodes),
                       "size_leaf_vector": "1"}}


def _shares(trees: Trees) -> np.ndarray[Any, Any]:
    """Of rows that lie anywhere alike: how many pass each node, (T, M + L)."""
    found = splits(trees)
    low_F, high_F = (np.array([getattr(axis, side) for axis in trees.axes]) for side in ("low", "high"))
    low_T1F, high_T1F = (np.repeat(bound_F[None], trees.trees, axis=0)[:, None] for bound_F in (low_F, high_F))
    share_TN, level_low, level_high, every = np.ones((trees.trees, 1)), low_T1F, high_T1F, np.arange(trees.trees)
    parts, first = [share_TN], 0
    for depth in range(trees.depth):
        width = 1 << depth
        feature_TW, at_TW = (array_TM[:, first:first + width] for array_TM in (found.feature_TM, found.threshold_TM))
        node_W = np.arange(width)
        low_TW, high_TW = (level[every[:, None], node_W, feature_TW] for level in (level_low, level_high))
        half_TW = np.full(low_TW.shape, 0.5)
        left_TW = np.divide(at_TW - low_TW, high_TW - low_TW, out=half_TW, where=high_TW > low_TW).clip(0, 1)
        level_low, level_high = np.repeat(level_low, 2, axis=1), np.repeat(level_high, 2, axis=1)
        level_high[every[:, None], 2 * node_W, feature_TW] = np.minimum(at_TW, high_TW)
        level_low[every[:, None], 2 * node_W + 1, feature_TW] = np.maximum(at_TW, low_TW)
        share_TN = np.stack([share_TN * left_TW, share_TN * (1 - left_TW)], axis=2).reshape(trees.trees, 2 * width)
        parts.append(share_TN)
        first += width
    return np.concatenate(parts, axis=1)
