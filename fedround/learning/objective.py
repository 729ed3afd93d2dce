"""A recipe's model and its task together: the loss that training lowers, and the scores that an evaluation reads.

B rows, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedround.learning.task import CLASSIFY, Task

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, eq=False)
class Objective:
    """Both."""

    model: nn.Module
    task: Task = CLASSIFY

    def outputs(self, weights: Mapping[str, torch.Tensor], features_BF: torch.Tensor) -> torch.Tensor:
        """What the model with these weights says of the rows. Raises ContractError as the task's `outputs` does."""
        from torch.func import functional_call

        return self.task.outputs(functional_call(self.model, dict(weights), (features_BF,)), len(features_BF))

    def loss(self, weights: Mapping[str, torch.Tensor], features_BF: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
        """The sum over rows of each row's loss."""
        return self.task.loss(self.outputs(weights, features_BF), labels_B, "sum")

    def losses(self, weights: Mapping[str, torch.Tensor], features_BF: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
        """Each row's loss, (B,)."""
        return self.task.loss(self.outputs(weights, features_BF), labels_B, "none")
