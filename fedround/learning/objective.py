"""What a model's outputs mean, in one place: the loss that training lowers, and the scores that an evaluation reads.

Two classes: one logit for each row, and the logistic loss. C > 2 classes: C logits for each row, and the cross-entropy.
B rows, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedround.errors import ContractError

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, eq=False)
class Objective:
    """A model and how many classes it tells apart."""

    model: nn.Module
    classes: int = 2

    def logits(self, weights: Mapping[str, torch.Tensor], features_BF: torch.Tensor) -> torch.Tensor:
        """(B,) for two classes, else (B, classes). Raises ContractError if the model gives anything else."""
        from torch.func import functional_call

        outputs: torch.Tensor = functional_call(self.model, dict(weights), (features_BF,))
        rows = len(features_BF)
        if self.classes == 2 and outputs.numel() == rows:
            return outputs.reshape(rows)
        if self.classes > 2 and outputs.shape == (rows, self.classes):
            return outputs
        wanted = "one logit" if self.classes == 2 else f"{self.classes} logits"
        raise ContractError(f"for {self.classes} classes the recipe's model must give {wanted} for each row, it gave outputs "
                            f"of shape {tuple(outputs.shape)} for {rows} rows; change the model, or CLASSES")

    def loss(self, weights: Mapping[str, torch.Tensor], features_BF: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
        """The sum over rows of each row's loss; labels are whole numbers from 0 to classes - 1."""
        return self._loss(weights, features_BF, labels_B, "sum")

    def losses(self, weights: Mapping[str, torch.Tensor], features_BF: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
        """Each row's loss, (B,)."""
        return self._loss(weights, features_BF, labels_B, "none")

    def _loss(self, weights: Mapping[str, torch.Tensor], features_BF: torch.Tensor, labels_B: torch.Tensor,
              reduction: str) -> torch.Tensor:
        from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

        logits = self.logits(weights, features_BF)
        if self.classes == 2:
            return binary_cross_entropy_with_logits(logits, labels_B.to(logits.dtype), reduction=reduction)
        return cross_entropy(logits, labels_B, reduction=reduction)

    def scores(self, logits: torch.Tensor, labels_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What is scored, (B,), float64, and what is true of it, (B,), 0 or 1.

        Two classes: the chance of label 1, and the label. More: the chance of the class that is predicted, and whether it
        is the right one.
        """
        import torch

        if self.classes == 2:
            return torch.sigmoid(logits.double()), labels_B
        chance_B, predicted_B = torch.softmax(logits.double(), dim=1).max(dim=1)
        return chance_B, (predicted_B == labels_B).long()
