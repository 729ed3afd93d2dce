"""Low-rank adapters (LoRA: Hu et al. 2021, arXiv:2106.09685), for recipes: a large model stays as it is, small ones learn.

A recipe wraps its model::

    def build_model():
        return adapt(Transformer(), ["*.query", "*.value"], rank=4, also=["head.*"])

What is not an adapter, nor named in `also`, is frozen: it does not travel, and comes from the federation's warm start
('fedround federation init --start-from'). An adapted layer's `weight` and `bias` keep their names, so that a pre-trained
state dict fits as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

import torch
from torch import nn
from torch.nn.functional import linear

from fedround.errors import ContractError

M = TypeVar("M", bound=nn.Module)


class LoRALinear(nn.Linear):
    """y = x (W + alpha / rank · B A)ᵀ + b, where only A (rank, in) and B (out, rank) are trained.

    B begins at zero, so that an adapted model begins as the model it adapts.
    """

    def __init__(self, in_features: int, out_features: int, rank: int, alpha: float | None = None, *, bias: bool = True):
        """alpha: how much the adapter counts; None: as `rank`, a factor of 1. Raises ContractError for another rank."""
        super().__init__(in_features, out_features, bias)
        if not 1 <= rank <= min(in_features, out_features):
            raise ContractError(f"an adapter of a layer from {in_features} to {out_features} has a rank from 1 to "
                                f"{min(in_features, out_features)}, got {rank}")
        self.requires_grad_(False)
        self.scale = (rank if alpha is None else alpha) / rank
        self.lora_A = nn.Parameter(torch.empty(rank, in_features))
        self.lora_B = nn.Parameter(torch.zeros(out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=5 ** 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in_features) to (…, out_features)."""
        return linear(x, self.weight, self.bias) + self.scale * linear(linear(x, self.lora_A), self.lora_B)

    def merged(self) -> nn.Linear:
        """A plain layer that computes the same."""
        plain = nn.Linear(self.in_features, self.out_features, self.bias is not None)
        with torch.no_grad():
            plain.weight.copy_(self.weight + self.scale * self.lora_B @ self.lora_A)
            if self.bias is not None:
                plain.bias.copy_(self.bias)
        return plain


def adapt(model: M, layers: Sequence[str], rank: int, alpha: float | None = None, also: Sequence[str] = ()) -> M:
    """The model with adapters in the linear layers whose names fit one of the patterns `layers`, and all else frozen but the
    parameters that fit one of `also`: a new head, say. Changes and returns it.

    Raises ContractError for a pattern that fits nothing.
    """
    model.requires_grad_(False)
    linears = {name: layer for name, layer in model.named_modules() if type(layer) is nn.Linear}
    for pattern in layers:
        if not any(fnmatchcase(name, pattern) for name in linears):
            raise ContractError(f"no linear layer fits the pattern '{pattern}'; they are {', '.join(linears)}")
    for name, layer in linears.items():
        if any(fnmatchcase(name, pattern) for pattern in layers):
            adapted = LoRALinear(layer.in_features, layer.out_features, rank, alpha, bias=layer.bias is not None)
            with torch.no_grad():
                adapted.weight.copy_(layer.weight)
                if layer.bias is not None:
                    adapted.bias.copy_(layer.bias)
            _replace(model, name, adapted)
    parameters = dict(model.named_parameters())
    for pattern in also:
        found = [name for name in parameters if fnmatchcase(name, pattern)]
        if not found:
            raise ContractError(f"no parameter fits the pattern '{pattern}' of 'also'")
        for name in found:
            parameters[name].requires_grad_(True)
    return model


def merge(model: M) -> M:
    """The model with every adapter worked into its layer: same outputs, no adapters. Changes and returns it."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoRALinear):
            _replace(model, name, layer.merged())
    return model


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    if not last:
        raise ContractError("the model is one linear layer: put it into another module to adapt it")
    setattr(model.get_submodule(parent), last, layer)
