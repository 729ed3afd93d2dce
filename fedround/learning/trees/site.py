"""A site's half of a round of trees: how steep the loss is in each leaf of the trees that are to grow.

B trees, L leaves, K outputs, N rows, n rows of a block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedround.codec import Tensors
from fedround.errors import ContractError
from fedround.learning.examples import Examples
from fedround.learning.gradients import Clip, clipped_vector
from fedround.learning.persons import Persons
from fedround.learning.tasks import Steepness, Task
from fedround.learning.trees.exact import CELL, digits
from fedround.learning.trees.losses import slopes
from fedround.learning.trees.outputs import REMEMBERED, features_of, grown
from fedround.learning.trees.spec import CURVATURES, SLOPES, Trees
from fedround.learning.trees.structure import Splits, blocks, leaves_of, splits
from fedround.privacy.noise import GRID, NoiseSource
from fedround.privacy.spec import GaussianUpdate, NoMechanism, RowSum, TrainingMechanism

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_SLACK = 2.0 ** -30
"""What float64 may do to a length, and far more."""


def sums(trees: Trees, task: Task, base: Tensors, examples: Examples, mechanism: TrainingMechanism,
         noise: NoiseSource, persons: Persons | None = None) -> dict[str, Float32]:
    """The update: (g, w h) summed by leaf, noised, and divided by the number of rows.

    Numbers are in units of `Steepness.length`, so a row adds a vector of length 1 at most to one leaf of each of B trees, and
    moves all sums together by sqrt(B) at most. `RowSum`: Gaussian noise of noise_multiplier sqrt(B) on each sum.
    `GaussianUpdate`: the whole vector of means is clipped and noised.

    persons: whose rows are whose. Then a person is what a row is otherwise: of k rows that are used each adds a k-th, so all
    of them together move the sums by sqrt(B) at most, and the division is by the number of persons.

    Promises: what is returned satisfies what an accountant says of `mechanism`, provided `noise` is secret and fresh (the
    number of rows counts as public, except with `GaussianUpdate`), to the last bit. A row that does not count adds nothing.
    Raises ContractError if all trees have grown, or there are too many rows to be summed exactly.
    """
    if isinstance(mechanism, RowSum):
        per_length = GRID / (mechanism.noise_multiplier * math.sqrt(trees.per_round)) * (1 - _SLACK)
    else:
        per_length = 1 / CELL
    cells_2BLK = _exact(trees, task, base, examples, persons, per_length)
    rows = len(examples) if persons is None else len(persons)
    parts_2PBLK = _noised(cells_2BLK, 1 / per_length, rows, mechanism, noise)
    return dict(zip((SLOPES, CURVATURES), parts_2PBLK, strict=True))


def summand(trees: Trees, task: Task, base: Tensors, examples: Examples, cells: int, noise: NoiseSource,
            persons: Persons | None = None) -> Float64:
    """(g, w h) summed by leaf, noised, in units in which a row moves all numbers together by a length of 1 at most, as
    `codec.flatten` orders them: what a site adds to a secure sum (`trees.server.mean_of_sum`).

    cells: so many of the noise's cells are a unit, and its standard deviation on each number is GRID / cells. persons:
    promises and raises as `sums`.
    """
    cells_2BLK = _exact(trees, task, base, examples, persons, cells / math.sqrt(trees.per_round) * (1 - _SLACK))
    return (cells_2BLK.ravel() + noise.normal(GRID, cells_2BLK.size)) / cells


def _exact(trees: Trees, task: Task, base: Tensors, examples: Examples, persons: Persons | None,
           per_length: float) -> Float64:
    """(g, w h) of all rows by leaf, in whole cells, so many to `Steepness.length`, (2, B, L, K)."""
    first, rows = grown(base), len(examples) if persons is None else len(persons)
    if first + trees.per_round > trees.trees:
        raise ContractError(f"all {trees.trees} trees have grown: a recipe with more rounds would let more grow")
    if rows == 0:
        raise ContractError("there are no rows to train on; check the site's training file")
    if rows * per_length > 2.0 ** 51:
        raise ContractError(f"{rows} {'rows' if persons is None else 'persons'} are too many to be summed exactly: ask for "
                            "more noise, that is, for a smaller epsilon")
    features_NF = features_of(examples)
    some, bound = splits(trees).of(slice(first, first + trees.per_round)), task.steepness
    output_NK = REMEMBERED(trees, base, features_NF, examples.digest)
    share_N = examples.counts_N.astype(np.float64) if persons is None else persons.shares(len(examples))
    return _summed(trees, task, some, output_NK, examples, features_NF, share_N, _Cells(bound, per_length))


def _noised(cells_2BLK: Float64, unit: float, rows: int, mechanism: TrainingMechanism, noise: NoiseSource) -> Float32:
    """The mean over rows as it may leave, (2, P, B, L, K), from the sum in cells of `unit`."""
    match mechanism:
        case RowSum():
            cells_2BLK = cells_2BLK + noise.normal(GRID, cells_2BLK.size).reshape(cells_2BLK.shape)
            return (cells_2BLK * (unit / rows)).astype(np.float32)[:, None]
        case NoMechanism():
            return np.stack([digits(cells_BLK, rows) for cells_BLK in cells_2BLK])
        case GaussianUpdate(noise_multiplier=multiplier, clip_norm=clip_norm):
            clip = Clip(clip_norm, multiplier * clip_norm / GRID)
            mean_D = clipped_vector((cells_2BLK * (unit / rows)).astype(np.float32).ravel(), clip)
            noised_D = (mean_D + noise.normal(GRID, len(mean_D))) * clip.cell
            return noised_D.astype(np.float32).reshape(cells_2BLK.shape)[:, None]
        case _:
            raise ContractError(f"trees are not noised with '{mechanism.kind}'")


def _summed(trees: Trees, task: Task, some: Splits, output_NK: Float64, examples: Examples, features_NF: Float32,
            share_N: Float64, cells_of: _Cells) -> Float64:
    """(g, w h) of all rows by leaf, each times its share, in whole cells, (2, B, L, K): exact, so the same in any order."""
    outputs = output_NK.shape[1]
    summed_2BLK = np.zeros((2, trees.per_round, trees.leaves, outputs))
    for rows in blocks(some, len(examples)):
        g_nK, h_nK = slopes(task, output_NK[rows], {name: array[rows] for name, array in examples.targets.items()})
        cells_2nK = cells_of(g_nK, h_nK, share_N[rows])
        for tree, leaf_n in enumerate(leaves_of(some, features_NF[rows])):
            for what, output in np.ndindex(2, outputs):
                summed_2BLK[what, tree, :, output] += np.bincount(leaf_n, cells_2nK[what, :, output], trees.leaves)
    return summed_2BLK


@dataclass(frozen=True)
class _Cells:
    """Each row's (g, w h) in whole cells, cut towards zero: its share of `per_length` cells at most (Euclidean), whatever the
    row is.
    """

    bound: Steepness
    per_length: float

    def __call__(self, g_nK: Float64, h_nK: Float64, share_n: Float64) -> Float64:
        length_2nK = np.stack([g_nK, self.bound.curvature * h_nK]) / self.bound.length
        squared_n = np.square(length_2nK).sum(axis=(0, 2))
        length_2nK[:, ~(np.isfinite(squared_n) & (share_n > 0))] = 0
        too_long_n = (share_n > 0) & (squared_n > 1 + _SLACK / 2)
        length_2nK[:, too_long_n] /= np.sqrt(squared_n[too_long_n])[:, None]
        return np.trunc(length_2nK * (share_n * self.per_length)[:, None])
