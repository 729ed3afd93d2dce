"""How good many models of one recipe are on the same rows, fast: a coordinator compares thousands on its public test set.

Legend: M models, D coordinates, N rows, B rows of a chunk.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fedround import codec
from fedround.codec import Schema, Tensors
from fedround.learning.batch import Tensors as InTorch
from fedround.learning.batch import batch_of, tensors_of
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples
from fedround.learning.objective import Objective
from fedround.learning.recipe import Recipe, unfilled
from fedround.learning.tasks import Outputs, Scored, Task, scored_together

MODELS, _ROWS = 16, 512
"""That are computed in one pass."""


class Judge:
    """Says what models are worth (`Task.worth`) on these rows.

    frozen: what is the same in all of them and does not travel.
    """

    def __init__(self, recipe: Recipe, schema: Schema, frozen: Tensors, rows: Examples):
        recipe.check(rows)
        self._recipe, self._schema, self._frozen, self._rows = recipe, schema, frozen, rows
        self._together = True

    @property
    def task(self) -> Task:
        """Of the recipe."""
        return self._recipe.task

    @property
    def grain(self) -> float:
        """By how much a model's worth changes where two of its scores change their order (`Task.grain`)."""
        return self._recipe.task.grain(self._rows.at(self._rows.counts_N).targets)

    def __call__(self, models_MD: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """What each is worth, (M,).

        Many models share a pass, if torch can map the recipe's model over its weights; else they take their turns as
        `evaluate.scores` has it. The scores of both ways differ in last bits at most.
        """
        found = []
        for start in range(0, len(models_MD), MODELS):
            some_MD = models_MD[start:start + MODELS]
            scored = self._at_once(some_MD) if self._together else None
            if scored is None:
                self._together = False
                scored = [scores(self._recipe, {**codec.unflatten(model_D, self._schema), **self._frozen}, self._rows)
                          for model_D in some_MD]
            found += [self._recipe.task.worth(one) for one in scored]
        return np.array(found)

    def _at_once(self, models_MD: npt.NDArray[np.float32]) -> list[Scored] | None:
        """The scores of every model; None: torch cannot map over this model's weights, or a row makes it raise an error."""
        import torch

        from fedround.learning.mapped import mapped

        objective, task = self._objective, self._recipe.task
        weights = {name: torch.from_numpy(part) for name, part in _stacked(models_MD, self._schema).items()}
        frozen, batch = tensors_of(self._frozen), batch_of(self._rows.at(self._rows.counts_N))

        parts = []
        with torch.no_grad():
            try:
                for start in range(0, batch.rows, _ROWS):
                    some = batch.at(slice(start, start + _ROWS))
                    made = mapped(lambda own, some=some: objective.outputs({**own, **frozen}, some.inputs), weights)
                    parts.append([_in_numpy(task.scored(one, some.targets)) for one in _each_model(made, len(models_MD))])
            except Exception as error:      # whatever torch or the model raises: the other way says whether it matters
                if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
                    raise
                return None
        return [scored_together(own) for own in zip(*parts, strict=True)]

    @functools.cached_property
    def _objective(self) -> Objective:
        return self._recipe.objective(unfilled(self._recipe).eval())


def _stacked(models_MD: npt.NDArray[np.float32], schema: Schema) -> Tensors:
    """Every tensor of all models, (M, its shape)."""
    tensors, offset = {}, 0
    for spec in schema:
        size = int(np.prod(spec.shape, dtype=np.int64))
        tensors[spec.name] = np.ascontiguousarray(models_MD[:, offset:offset + size]).reshape(-1, *spec.shape)
        offset += size
    return tensors


def _each_model(outputs: Outputs, models: int) -> list[Outputs]:
    if isinstance(outputs, Mapping):
        return [{head: part[place] for head, part in outputs.items()} for place in range(models)]
    return list(outputs)


def _in_numpy(scored: InTorch) -> Scored:
    return Scored({name: part.numpy() for name, part in scored.items()})
