"""Sums of gradients over some of a site's rows: all that training needs of a recipe's code.

D coordinates (in the order of `codec.flatten`), B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from fedround.codec import Tensors, flatten, schema_of, unflatten
from fedround.learning.apart import Bools, Float32, Float64, GradientSums, Int64, Sought
from fedround.learning.batch import batch_of
from fedround.learning.device import OnDevice, chosen, working_on
from fedround.learning.furnished import furnished
from fedround.learning.gradients import RowGradients, clipped_sum, gradient_sum
from fedround.learning.recipe import Recipe


@contextmanager
def gradient_sums(recipe: Recipe, sought: Sought) -> Iterator[GradientSums]:
    """What sums gradients of the recipe's model: in this process, or where its code runs.

    Raises ContractError if the model cannot be trained so, or the tensors are not of this model; SetupError if this machine
    does not have the device.
    """
    if recipe.apart is not None:
        with recipe.apart.gradients(sought) as sums:
            yield sums
        return
    with working_on(chosen(sought.device)):
        yield _Here(recipe, sought)


class _Here:
    """As `GradientSums`, in this process."""

    def __init__(self, recipe: Recipe, sought: Sought):
        place, rest, bound = chosen(sought.device), sought.rest, sought.bound
        model = furnished(recipe, sought.base, rest, per_record=bound is not None).to(place)
        recipe.check(sought.examples)
        self._buffers = {name: buffer for name, buffer in model.named_buffers() if name in rest.private}
        trained = {**sought.base, **{name: array for name, array in rest.private.items() if name not in self._buffers}}
        self.schema, self.weights_D = schema_of(trained), flatten(trained)
        # torch sees the weights through these views. So a step on the flat vector is a step of the model.
        self._placed = OnDevice(unflatten(self.weights_D, self.schema), place)
        self._everything, self._place, self._bound = batch_of(sought.examples).to(place), place, bound
        self._objective = recipe.objective(model, sought.training)
        if bound is not None:
            self._of_rows = RowGradients.tried(self._objective, self._placed.parameters, self._everything)
            self._chunk = self._of_rows.chunk_for(bound.expected, bound.each)

    def begin(self, seed: int) -> None:
        """As `GradientSums`."""
        import torch

        torch.manual_seed(seed)

    def plain(self, rows_B: Int64) -> Float32 | Float64:
        """As `GradientSums`."""
        import torch

        self._placed.follow()
        return gradient_sum(self._objective, self._placed.parameters,
                            self._everything.at(torch.from_numpy(rows_B).to(self._place)))

    def bounded(self, rows_B: Int64, there_B: Bools) -> tuple[Int64, int]:
        """As `GradientSums`."""
        import torch

        if self._bound is None:
            raise ValueError("nothing bounds these rows")
        self._placed.follow()
        return clipped_sum(self._of_rows, self._placed.parameters,
                           self._everything.at(torch.from_numpy(rows_B).to(self._place)), self._bound.clip,
                           counts_B=torch.from_numpy(there_B).to(self._place), chunk=self._chunk, each=self._bound.each)

    def kept(self) -> Tensors:
        """As `GradientSums`."""
        return {name: np.array(buffer.cpu().numpy()) for name, buffer in self._buffers.items()}
