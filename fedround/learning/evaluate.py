"""What a model says of rows that are here."""

from __future__ import annotations

import numpy as np

from fedround.codec import Tensors
from fedround.learning.objective import Objective
from fedround.learning.recipe import Examples, Recipe, unfilled
from fedround.learning.task import Scored
from fedround.learning.train import check_fits

CHUNK = 4096


def scores(recipe: Recipe, tensors: Tensors, examples: Examples) -> Scored:
    """The model's scores of all examples. tensors: the whole model; where not all of it travels, with its rest.

    Raises ContractError if model, tensors and examples do not fit each other.
    """
    import torch

    recipe.check(examples)
    model = unfilled(recipe).eval()
    check_fits(recipe, model, tensors)
    objective = Objective(model, recipe.task)
    weights = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in tensors.items()}
    features_NF, labels_N = torch.from_numpy(examples.features_NF), torch.from_numpy(examples.labels_N)
    chance_N, truth_N = np.empty(len(examples)), np.empty(len(examples), np.int64)
    with torch.no_grad():
        for start in range(0, len(examples), CHUNK):
            rows = slice(start, start + CHUNK)
            chance, truth = recipe.task.scored(objective.outputs(weights, features_NF[rows]), labels_N[rows])
            chance_N[rows], truth_N[rows] = chance.numpy(), truth.numpy()
    return Scored(chance_N, truth_N)
