"""Scores a model on local rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedround.codec import Tensors
from fedround.learning.batch import Batch, batch_of, filled, tensors_of
from fedround.learning.examples import Examples
from fedround.learning.furnished import check_fits
from fedround.learning.objective import Objective
from fedround.learning.recipe import Recipe, unfilled
from fedround.learning.single_rows import without_rows_that_raise, works_for
from fedround.learning.tasks import Outputs, Scored, scored_together
from fedround.learning.trees.outputs import REMEMBERED, features_of
from fedround.learning.trees.spec import Trees

if TYPE_CHECKING:
    import torch

CHUNK = 128
"""Rows that are scored in one pass. The number is constant; the last chunk is padded."""


def scores(recipe: Recipe, tensors: Tensors, examples: Examples, way: Way | None = None) -> Scored:
    """The model's scores of all examples that count, as `scored_rows`."""
    return scored_rows(recipe, tensors, examples, way)[0]


@dataclass
class Way:
    """How a recipe's model is run on rows of one form, for whoever scores many models on such rows one after the other."""

    together: bool | None = None
    """Whether torch maps the model over rows; None: it was not tried yet."""
    objective: Objective | None = None
    """With the model, whose numbers are set anew each time; None: it was not built yet."""


def scored_rows(recipe: Recipe, tensors: Tensors, examples: Examples,
                way: Way | None = None) -> tuple[Scored, npt.NDArray[np.bool_]]:
    """The model's scores of all examples that count, and which of the examples these are, (N,).

    tensors: the whole model; where not all of it travels, with its rest. way: what earlier calls have found; None: nothing.

    A row's score has the same bits whatever the other rows are. So removing a record lowers one count of a table by one and
    changes no other, even with weights that were chosen to make rounding errors large. A row on which the model raises an
    error counts for nothing.
    Raises ContractError if model, tensors and examples do not fit each other.
    """
    recipe.check(examples)
    if recipe.trees is not None:
        return _by_trees(recipe, recipe.trees, tensors, examples)
    if recipe.apart is not None:
        return recipe.apart.scored(tensors, examples)
    import torch

    way = way or Way()
    objective = way.objective = way.objective or recipe.objective(unfilled(recipe).eval())
    check_fits(recipe, objective.model, tensors)
    weights, everything = tensors_of(tensors), batch_of(examples)
    there_N, parts, counts_N = torch.from_numpy(examples.counts_N.copy()), list[Scored](), examples.counts_N.copy()
    with torch.no_grad():
        together, one_by_one = partial(_of_all, objective, weights), partial(_of_one_after_another, objective, weights)
        if way.together is None:
            way.together = works_for(together, one_by_one, everything)
        if not way.together:
            together = one_by_one
        for start in range(0, max(len(examples), 1), CHUNK):
            rows = slice(start, start + CHUNK)
            batch, there_B = everything.at(rows).filled(CHUNK), filled(there_N[rows], CHUNK)
            outputs = without_rows_that_raise(together, one_by_one, batch, there_B)
            counts_N[rows] = there_B[:len(counts_N[rows])].numpy()
            found = recipe.task.scored(outputs, batch.targets)
            parts.append(Scored({name: part.numpy()[:len(counts_N[rows])] for name, part in found.items()}))
    return scored_together(parts).at(counts_N), counts_N


def _by_trees(recipe: Recipe, trees: Trees, tensors: Tensors, examples: Examples) -> tuple[Scored, npt.NDArray[np.bool_]]:
    """The same for a model of trees, whose outputs are a function of each row by itself."""
    import torch

    counting = examples.at(examples.counts_N)
    raw = torch.from_numpy(REMEMBERED(trees, tensors, features_of(examples), examples.digest)[examples.counts_N])
    told = recipe.task.scored(recipe.task.outputs(raw, len(raw)), batch_of(counting).targets)
    return Scored({name: part.numpy() for name, part in told.items()}), examples.counts_N


def _of_all(objective: Objective, weights: Mapping[str, torch.Tensor], batch: Batch) -> Outputs:
    """The model's output for each row, computed separately."""
    from fedround.learning.mapped import mapped

    def of_one(row: Mapping[str, torch.Tensor]) -> Outputs:
        return _first(objective.outputs(weights, {name: part[None] for name, part in row.items()}))

    outputs: Outputs = mapped(of_one, batch.inputs)
    return outputs


def _of_one_after_another(objective: Objective, weights: Mapping[str, torch.Tensor], batch: Batch) -> Outputs:
    """The same, for models that torch cannot map over rows."""
    import torch

    found = [objective.outputs(weights, batch.at(slice(row, row + 1)).inputs) for row in range(batch.rows)]
    heads = [one for one in found if isinstance(one, Mapping)]
    if heads:
        return {head: torch.cat([one[head] for one in heads]) for head in heads[0]}
    return torch.cat([one for one in found if isinstance(one, torch.Tensor)])


def _first(outputs: Outputs) -> Outputs:
    """Of the one row that there is."""
    return {head: part[0] for head, part in outputs.items()} if isinstance(outputs, Mapping) else outputs[0]
