"""Rows as torch sees them.

B rows of a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fedround.learning.examples import INPUT, Arrays, Examples

if TYPE_CHECKING:
    import torch
    from torch import nn

Tensors = dict[str, "torch.Tensor"]


class Batch(NamedTuple):
    """Inputs and targets of some rows, by name; each tensor is (B, ...)."""

    inputs: Tensors
    targets: Tensors

    @property
    def rows(self) -> int:
        """B."""
        return len(next(iter(self.inputs.values())))

    @property
    def is_changed(self) -> bool:
        """Whether somebody has written into it since it was made: a model may change its inputs in place."""
        return any(part._version > 0 for part in self.named.values())

    def at(self, rows: Any) -> Batch:
        """These rows: places, a slice, or a bool for each."""
        return Batch({name: part[rows] for name, part in self.inputs.items()},
                     {name: part[rows] for name, part in self.targets.items()})

    def to(self, device: torch.device) -> Batch:
        """The same, there; no copy, if it is there."""
        return Batch({name: part.to(device) for name, part in self.inputs.items()},
                     {name: part.to(device) for name, part in self.targets.items()})

    def filled(self, size: int) -> Batch:
        """A copy, with zeros after it, so that it has as many rows as every chunk."""
        return Batch({name: filled(part, size) for name, part in self.inputs.items()},
                     {name: filled(part, size) for name, part in self.targets.items()})

    def zeros(self, rows: int) -> Batch:
        """So many rows of this form that nobody has."""
        return self.at(slice(0, 0)).filled(rows)

    @property
    def named(self) -> Tensors:
        """All of it, for a recipe's own loss."""
        return {**self.inputs, **self.targets}


def batch_of(examples: Examples) -> Batch:
    """The same numbers; no copy."""
    return Batch(tensors_of(examples.inputs), tensors_of(examples.targets))


def tensors_of(arrays: Arrays) -> Tensors:
    """The same numbers; no copy, if they lie in one piece."""
    import torch

    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def filled(part: torch.Tensor, size: int) -> torch.Tensor:
    """A copy, with zeros after it."""
    import torch

    if len(part) == size:
        return part.clone()
    whole = torch.zeros(size, *part.shape[1:], dtype=part.dtype, device=part.device)
    whole[:len(part)] = part
    return whole


def arguments(inputs: Tensors) -> tuple[tuple[torch.Tensor, ...], Tensors]:
    """How a model is called with them: with the one array, or by name."""
    return ((inputs[INPUT],), {}) if set(inputs) == {INPUT} else ((), inputs)


def called(model: nn.Module, inputs: Tensors) -> Any:
    """What the model gives."""
    alone, by_name = arguments(inputs)
    return model(*alone, **by_name)
