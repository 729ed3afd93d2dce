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
from fedround.learning.tasks import Outputs
from fedround.simulation.ghost import Tape, uses

if TYPE_CHECKING:
    import torch

    Parts = dict[str, torch.Tensor]
    """By parameter, (S, its shape)."""
    Rows = tuple[Batch, torch.Tensor]
    """Rows of every site, (S, B, ...), and 1.0 for every one that is there, (S, B)."""


def plain_sum(objective: Objective, weights: Parts, rows: Rows) -> Parts:
    """Of every site's rows.

    No site's loss depends on another one's weights, so the gradient of the sum of all is each one's own.
    """
    batch, valid_SB = rows
    leaves = _leaves(weights)
    loss_M = _losses(objective, over_sites(objective.outputs)(leaves, batch.inputs), batch)
    return _gradients(loss_M @ valid_SB.flatten(), leaves)


def clipped_sum(objective: Objective, tape: Tape | None, weights: Parts, rows: Rows,
                clip_norm: float) -> tuple[Parts, torch.Tensor]:
    """Of every site's rows, each clipped to `clip_norm`; and how many were within it, (S,).

    tape: on the objective's model, if its layers are known; else every row's gradient is computed, which takes memory for
    S · B models. A row whose gradient is not finite counts as zero.
    """
    import torch

    batch, valid_SB = rows
    if tape is None:
        each = _gradient_of_each_row(objective, weights, batch)
        square_SB = torch.stack([torch.linalg.vector_norm(part.flatten(2), dim=2, dtype=torch.float64).square()
                                 for part in each.values()]).sum(0)
        share_SB, within_S = _shares(square_SB, valid_SB, clip_norm)
        return {name: torch.einsum("sb,sb...->s...", share_SB, _finite(part, share_SB))
                for name, part in each.items()}, within_S
    inputs, returned = _tapes(objective, tape, weights, batch)
    square_SB = over_sites(tape.squared_norms)(inputs, returned)
    share_SB, within_S = _shares(square_SB, valid_SB, clip_norm)
    finite = [{name: _finite(part, share_SB) for name, part in parts.items()} for parts in (inputs, returned)]
    parts: Parts = over_sites(tape.weighted_sum)(*finite, share_SB)
    return parts, within_S


def over_sites(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of one site, as one of stacks."""
    from torch import vmap

    def call(*stacks: Any) -> Any:
        sites = len(next(iter(stacks[0].values())) if isinstance(stacks[0], dict) else stacks[0])
        if sites > 1:
            return vmap(function, randomness="different")(*stacks)
        return _each(function(*(_each(stack, lambda part: part[0]) for stack in stacks)), lambda part: part[None])

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


def _tapes(objective: Objective, tape: Tape, weights: Parts, batch: Batch) -> tuple[Parts, Parts]:
    """What went into each layer, and what came back to it."""
    import torch

    def run(weights: Parts, inputs: Parts, probes: Parts) -> tuple[Outputs, Parts]:
        tape.begin(probes)
        return objective.outputs(weights, inputs), tape.end()

    shapes = uses(objective.model, tape.layers, batch.at(0).inputs)
    probes = {name: torch.zeros(batch.rows, *shape, requires_grad=True) for name, shape in shapes.items()}
    outputs, inputs = over_sites(run)(weights, batch.inputs, probes)
    returned = torch.autograd.grad(_losses(objective, outputs, batch).sum(), list(probes.values()))
    return {name: part.detach() for name, part in inputs.items()}, dict(zip(probes, returned, strict=True))


def _gradient_of_each_row(objective: Objective, weights: Parts, batch: Batch) -> Parts:
    """(S, B, a parameter's shape): every row gets weights of its own, views of the same numbers."""
    from torch import vmap

    def loss_of_row(weights: Parts, row: Batch) -> torch.Tensor:
        return objective.loss(weights, row.at(None))

    sites, rows = next(iter(batch.targets.values())).shape[:2]
    leaves = {name: part.detach()[:, None].expand(sites, rows, *part.shape[1:]).requires_grad_()
              for name, part in weights.items()}
    loss_SB = over_sites(vmap(loss_of_row, randomness="different"))(leaves, batch)
    return _gradients(loss_SB.sum(), leaves)


def _gradients(total: torch.Tensor, leaves: Parts) -> Parts:
    """Zero for what takes no part."""
    import torch

    return dict(zip(leaves, torch.autograd.grad(total, list(leaves.values()), materialize_grads=True), strict=True))


def _leaves(weights: Parts) -> Parts:
    """The same numbers, with gradients of their own."""
    return {name: part.detach().requires_grad_() for name, part in weights.items()}


def _losses(objective: Objective, outputs: Outputs, batch: Batch) -> torch.Tensor:
    """Of every row of all sites, one after the other, (S · B,)."""
    flat = _each((outputs, batch.inputs, batch.targets), lambda part: part.flatten(0, 1))
    return objective.losses_of(flat[0], Batch(*flat[1:]))


def _shares(square_SB: torch.Tensor, valid_SB: torch.Tensor, clip_norm: float) -> tuple[torch.Tensor, torch.Tensor]:
    norm_SB = square_SB.sqrt()
    share_SB = (clip_norm / norm_SB).clamp(max=1).where(norm_SB.isfinite(), norm_SB.new_zeros(())) * valid_SB
    return share_SB.float(), ((norm_SB <= clip_norm) * valid_SB).sum(1)


def _finite(part: torch.Tensor, share_SB: torch.Tensor) -> torch.Tensor:
    """Zero where a row has no share: zero times infinity would not be."""
    if bool(part.isfinite().all()):
        return part
    return part.where((share_SB > 0).reshape(*share_SB.shape, *[1] * (part.ndim - 2)), part.new_zeros(()))
