"""What a model of trees says of rows.

T trees, B of a batch, L leaves, K outputs, N rows, F features.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedround.codec import Tensors
from fedround.errors import ContractError
from fedround.learning.examples import Examples
from fedround.learning.trees.spec import GROWN, LEAVES, Trees
from fedround.learning.trees.structure import blocks, leaves_of, splits

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_BATCH = 16                     # trees that are walked at once
_REMEMBERED = 32                # rows whose outputs are kept for the next model


def grown(model: Tensors) -> int:
    """How many trees the model has."""
    return int(model[GROWN][0])


def features_of(examples: Examples) -> Float32:
    """What trees split by. Raises ContractError unless the recipe gives one table of numbers."""
    found = list(examples.inputs.values())
    if len(found) != 1 or found[0].ndim != 2 or found[0].dtype != np.float32:
        raise ContractError(f"trees split by a table of numbers, and the recipe's features are {examples.form}: give one "
                            "float32 array with a column for each axis")
    return found[0]


def outputs(trees: Trees, model: Tensors, features_NF: Float32, first: int = 0, begun_NK: Float64 | None = None) -> Float64:
    """The sum of the leaves in which each row is, (N, K), from tree `first` on, added to `begun_NK`.

    Added one tree after the other, so a row's output has the same bits whatever the other rows are, and from whichever tree
    it was continued.
    """
    all_splits, leaves_TLK, count = splits(trees), model[LEAVES].astype(np.float64), grown(model)
    output_NK = np.zeros((len(features_NF), leaves_TLK.shape[2])) if begun_NK is None else begun_NK.copy()
    for start in range(first, count, _BATCH):
        some = slice(start, min(start + _BATCH, count))
        batch = all_splits.of(some)
        for rows in blocks(batch, len(features_NF)):
            for leaves_LK, leaf_n in zip(leaves_TLK[some], leaves_of(batch, features_NF[rows]), strict=True):
                output_NK[rows] += leaves_LK[leaf_n]
    return output_NK


@dataclass(frozen=True, eq=False)
class _Known:
    leaves_TLK: Float32
    output_NK: Float64


class Outputs:
    """The same, going on from the outputs of an earlier model of which this one is a continuation.

    What is remembered stays in this process. It changes no number.
    """

    def __init__(self) -> None:
        self._known = OrderedDict[tuple[str, Trees], _Known]()

    def __call__(self, trees: Trees, model: Tensors, features_NF: Float32, digest: str) -> Float64:
        """As `outputs`; digest: names the rows."""
        count, key = grown(model), (digest, trees)
        known, first = self._known.pop(key, None), 0
        if known is not None and len(known.leaves_TLK) <= count and np.array_equal(
                model[LEAVES][:len(known.leaves_TLK)], known.leaves_TLK):
            first = len(known.leaves_TLK)
        output_NK = outputs(trees, model, features_NF, first, known.output_NK if first and known is not None else None)
        self._known[key] = _Known(model[LEAVES][:count].copy(), output_NK)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return output_NK


REMEMBERED = Outputs()
"""Of this process. Between two rounds of a run, only the trees that have grown since are walked."""
