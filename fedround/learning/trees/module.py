"""A model of trees as torch sees it: for whatever scores, explains or exports models of every kind.

It gives the numbers of `fedround.learning.trees.outputs` to float32.
"""

from __future__ import annotations

import torch
from torch import nn

from fedround.learning.trees.spec import Trees
from fedround.learning.trees.structure import splits


class Ensemble(nn.Module):
    """(N, F) features to (N, K) outputs."""

    feature_TM: torch.Tensor
    threshold_TM: torch.Tensor

    def __init__(self, trees: Trees, outputs: int):
        super().__init__()
        found = splits(trees)
        self.register_buffer("feature_TM", torch.from_numpy(found.feature_TM))
        self.register_buffer("threshold_TM", torch.from_numpy(found.threshold_TM))
        self.depth = trees.depth
        self.leaves = nn.Parameter(torch.zeros(trees.trees, trees.leaves, outputs))
        self.grown = nn.Parameter(torch.zeros(1))

    def forward(self, features_NF: torch.Tensor) -> torch.Tensor:
        """The sum of the leaves in which each row is. Leaves of trees that have not grown are 0."""
        right_NTM = (features_NF[:, self.feature_TM] > self.threshold_TM).long()
        node_NT1 = torch.zeros_like(right_NTM[:, :, :1])
        for _ in range(self.depth):
            node_NT1 = 2 * node_NT1 + 1 + right_NTM.gather(2, node_NT1)
        leaf_NT = node_NT1[:, :, 0] - right_NTM.shape[2]
        found_NTK = self.leaves[torch.arange(len(self.leaves)), leaf_NT]
        return found_NTK.sum(dim=1) + 0 * self.grown
