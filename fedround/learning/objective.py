"""A recipe's model and its task together: the loss that training lowers, and the outputs that an evaluation reads.

B rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedround.errors import ContractError
from fedround.learning.augmentation import Augmentation
from fedround.learning.batch import Batch, Tensors, arguments
from fedround.learning.examples import TARGET
from fedround.learning.tasks import CLASSIFY, Outputs, Task

if TYPE_CHECKING:
    import torch
    from torch import nn

OwnLoss = Callable[[Outputs, Tensors], "torch.Tensor"]
"""A recipe's `loss`: of the model's outputs and the batch (inputs and targets, by name), each row's loss, (B,)."""


@dataclass(frozen=True, eq=False)
class Objective:
    """Model, task, and the recipe's own loss if it has one."""

    model: nn.Module
    task: Task = CLASSIFY
    own_loss: OwnLoss | None = None
    class_weights: tuple[float, ...] = ()
    """What a row's loss is multiplied by, for each label; empty: nothing."""
    augmentation: Augmentation | None = None

    def outputs(self, weights: Mapping[str, torch.Tensor], inputs: Tensors) -> Outputs:
        """What the model with these weights says of the rows. Raises ContractError as the task's `outputs` does."""
        from torch.func import functional_call

        alone, by_name = arguments(inputs)
        rows = len(next(iter(inputs.values())))
        return self.task.outputs(
            functional_call(self.model, dict(weights), alone, by_name, tie_weights=self._ties), rows)

    @functools.cached_property
    def _ties(self) -> bool:
        """Whether one tensor of the model has several names. Looking for these in each pass takes as long as a layer."""
        return any(len([*named(remove_duplicate=False)]) > len([*named()])
                   for named in (self.model.named_parameters, self.model.named_buffers))

    def losses_of(self, outputs: Outputs, batch: Batch) -> torch.Tensor:
        """Each row's loss, (B,), from what the model said. Raises ContractError if a recipe's own loss has another shape."""
        if self.own_loss is None:
            return self.task.losses(outputs, batch.targets)
        found = self.own_loss(outputs, batch.named)
        if tuple(found.shape) != (batch.rows,):
            raise ContractError(f"the recipe's loss(outputs, batch) must give one number for each row, it gave the shape "
                                f"{tuple(found.shape)} for {batch.rows} rows: do not average over rows")
        return found

    def loss(self, weights: Mapping[str, torch.Tensor], batch: Batch) -> torch.Tensor:
        """The sum over rows of each row's loss."""
        return self.losses(weights, batch).sum()

    def losses(self, weights: Mapping[str, torch.Tensor], batch: Batch) -> torch.Tensor:
        """Each row's loss, (B,), as training has it: the mean over its changed copies, times the weight of its label."""
        if self.augmentation is None:
            losses_B = self.losses_of(self.outputs(weights, batch.inputs), batch)
        else:
            copies = self.augmentation(batch)
            losses_B = self.losses_of(self.outputs(weights, copies.inputs), copies).reshape(batch.rows, -1).mean(1)
        return losses_B * self._weights_of(batch) if self.class_weights else losses_B

    def _weights_of(self, batch: Batch) -> torch.Tensor:
        import torch

        labels_B = batch.targets[TARGET]
        return torch.tensor(self.class_weights, device=labels_B.device)[labels_B]
