"""Sums of gradients of many sites in one call: plain, or of which each row's part is clipped.

The twins of `fedround.learning.gradients` for stacked models, in float32. What `vmap` maps over is the sites; a stack of one
is computed as it is, which is faster.

Legend: S sites, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fedround.learning.batch import Batch
from fedround.learning.objective import Objective

if TYPE_CHECKING:
    import torch

    from fedround.learning.tape import Tape

    Parts = dict[str, torch.Tensor]
    """By parameter, (S, its shape)."""
    Rows = tuple[Batch, torch.Tensor]
    """Rows of every site, (S, B, ...), and 1.0 for every one that is there, (S, B)."""


def plain_sum(objective: Objective, weights: Parts, rows: Rows) -> Parts:
    """Of every site's rows.

    No site's loss depends on another one's weights, so the gradient of the sum of all is each one's own.
    """
    import torch

    batch, valid_SB = rows
    leaves = {name: part.detach().requires_grad_() for name, part in weights.items()}
    losses_SB = over_sites(objective.losses)(leaves, batch)
    found = torch.autograd.grad(losses_SB, list(leaves.values()), valid_SB, materialize_grads=True)
    return dict(zip(leaves, found, strict=True))


def clipped_sum(tape: Tape, weights: Parts, rows: Rows, clip_norm: float) -> tuple[Parts, torch.Tensor]:
    """Of every site's rows, each clipped to `clip_norm`; and how many were within it, (S,).

    A row whose gradient is not finite counts as zero.
    """
    import torch

    from fedround.learning.by_rows import by_parameter

    batch, valid_SB = rows
    sites = len(valid_SB)
    of_rows = (weights, tuple(valid_SB.shape), batch) if sites > 1 else (
        _each(weights, _only), (valid_SB.shape[1],), _each(batch, _only))
    parts = by_parameter({name: part.shape[1:] for name, part in weights.items()}, *tape(*of_rows))
    norm_SB = torch.stack([part.squares() for part in parts.values()]).sum(0).sqrt().reshape(valid_SB.shape)
    finite_SB = norm_SB.isfinite()
    share_SB = ((clip_norm / norm_SB).clamp(max=1).where(finite_SB, norm_SB.new_zeros(())) * valid_SB).float()
    if not bool(finite_SB.all()):
        parts = {name: part.without(~finite_SB.flatten()) for name, part in parts.items()}
    return {name: parts[name].weighted(share_SB).reshape(weight.shape) if name in parts else torch.zeros_like(weight)
            for name, weight in weights.items()}, ((norm_SB <= clip_norm) * valid_SB).sum(1)


def over_sites(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of one site, as one of stacks."""
    from fedround.learning.mapped import mapped

    def call(*stacks: Any) -> Any:
        sites = len(next(iter(stacks[0].values())) if isinstance(stacks[0], dict) else stacks[0])
        if sites > 1:
            return mapped(function, *stacks)
        return _each(function(*(_each(stack, _only) for stack in stacks)), lambda part: part[None])

    return call


def _each(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Tensors, or dictionaries and tuples of them, changed one by one."""
    if isinstance(value, dict):
        return {name: _each(part, change) for name, part in value.items()}
    if isinstance(value, Batch):
        return Batch(*(_each(part, change) for part in value))
    if isinstance(value, tuple):
        return tuple(_each(part, change) for part in value)
    return change(value)


def _only(stack: torch.Tensor) -> torch.Tensor:
    return stack[0]
