"""Scores a model on local rows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedround.codec import Tensors
from fedround.learning.objective import Objective
from fedround.learning.recipe import Examples, Recipe, unfilled
from fedround.learning.single_rows import filled, without_rows_that_raise, works_for
from fedround.learning.task import Scored
from fedround.learning.train import check_fits

if TYPE_CHECKING:
    import torch

CHUNK = 128
"""Rows that are scored in one pass. The number is constant; the last chunk is padded."""


def scores(recipe: Recipe, tensors: Tensors, examples: Examples) -> Scored:
    """The model's scores of all examples that count, as `scored_rows`."""
    return scored_rows(recipe, tensors, examples)[0]


def scored_rows(recipe: Recipe, tensors: Tensors, examples: Examples) -> tuple[Scored, npt.NDArray[np.bool_]]:
    """The model's scores of all examples that count, and which of the examples these are, (N,).

    tensors: the whole model; where not all of it travels, with its rest.

    A row's score has the same bits whatever the other rows are. So removing a record lowers one count of a table by one and
    changes no other, even with weights that were chosen to make rounding errors large. A row on which the model raises an
    error counts for nothing.
    Raises ContractError if model, tensors and examples do not fit each other.
    """
    import torch

    recipe.check(examples)
    model = unfilled(recipe).eval()
    check_fits(recipe, model, tensors)
    objective = Objective(model, recipe.task)
    weights = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in tensors.items()}
    everything = (torch.from_numpy(examples.features_NF), torch.from_numpy(examples.labels_N),
                  torch.from_numpy(examples.counts_N).clone())
    chance_N, truth_N = np.empty(len(examples)), np.empty(len(examples), np.int64)
    counts_N = examples.counts_N.copy()
    with torch.no_grad():
        together, one_by_one = partial(_of_all, objective, weights), partial(_of_one_after_another, objective, weights)
        if not works_for(together, one_by_one, examples.features_NF.shape[1]):
            together = one_by_one
        for start in range(0, len(examples), CHUNK):
            x_BF, y_B, there_B = (filled(part[start:start + CHUNK], CHUNK) for part in everything)
            outputs = without_rows_that_raise(together, one_by_one, x_BF, y_B, there_B)
            chance, truth = recipe.task.scored(outputs, y_B)
            rows = slice(start, start + CHUNK)
            made = len(chance_N[rows])
            chance_N[rows], truth_N[rows] = chance[:made].numpy(), truth[:made].numpy()
            counts_N[rows] = there_B[:made].numpy()
    return Scored(chance_N[counts_N], truth_N[counts_N]), counts_N


def _of_all(objective: Objective, weights: Mapping[str, torch.Tensor], x_BF: torch.Tensor, y_B: torch.Tensor) -> torch.Tensor:
    """The model's output for each row, computed separately."""
    from torch import vmap

    def of_one(x_F: torch.Tensor) -> torch.Tensor:
        return objective.outputs(weights, x_F[None])[0]

    outputs: torch.Tensor = vmap(of_one, randomness="different")(x_BF)
    return outputs


def _of_one_after_another(objective: Objective, weights: Mapping[str, torch.Tensor], x_BF: torch.Tensor,
                          y_B: torch.Tensor) -> torch.Tensor:
    """The same, for models that torch cannot map over rows."""
    import torch

    return torch.cat([objective.outputs(weights, x_BF[row:row + 1]) for row in range(len(x_BF))])
