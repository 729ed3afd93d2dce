"""What goes into every matrix of a model, and what comes back to it: a row's gradient is made of both.

A row's gradient of a matrix is the product of what came back to it and what went into it, summed over the row's places
(Goodfellow 2015, arXiv:1510.01799; convolutions: Rochette et al. 2019, arXiv:1912.06015). So one pass with shared weights
gives the gradients of all rows. Whatever else a model does with a parameter, it does with a copy that is the row's own, and
autograd computes that gradient; both are added. So no layer needs to be known; the known ones are fast.

Legend: B rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import vmap
from torch.nn import functional

from fedround.learning.mapped import Cell, Mapped, State
from fedround.learning.uses import Seen, Use, Window

Tensors = Mapping[str, torch.Tensor]
Loss = Callable[..., torch.Tensor]
"""Of weights by name, and of what a row is made of."""


class Tape(Mapped):
    """Of one model, for many passes.

    The first pass looks at what is used. Later ones record that. A use that is not among them (of a layer that is skipped by
    chance, say) is computed with the row's own copies.
    """

    def __init__(self, loss: Loss):
        super().__init__()
        self._loss = loss
        self._uses: list[Use] | None = None
        self._pass = _Pass()

    def __call__(self, parameters: Tensors, sizes: tuple[int, ...],
                 *rows: Any) -> tuple[list[Seen], dict[str, torch.Tensor]]:
        """What was seen of all rows, and by parameter the gradients of what was done with the rows' own copies, (B, …).

        rows: what the loss takes, of so many rows. Two sizes: of so many models, and so many rows of each; parameters and
        rows are stacked, and B is all rows, model after model.
        Raises what the model raises on one of the rows, and what torch raises if it cannot map the model.
        """
        of_rows = vmap(self._of_row, in_dims=(None, 0, 0, *[0] * len(rows)), randomness="different")
        if len(sizes) > 1:
            of_rows = vmap(of_rows, randomness="different")
        copies = {name: _expanded(value, sizes, value.shape[len(sizes) - 1:]) for name, value in parameters.items()}
        if self._uses is None:
            with torch.no_grad():
                of_rows(parameters, copies, [], *rows)
            self._uses = self._pass.uses
        copies = {name: value.requires_grad_() for name, value in copies.items()}
        leaves = [_leaf(use, parameters, sizes).requires_grad_() for use in self._uses]
        losses, ins = of_rows(parameters, copies, leaves, *rows)
        back = [None if part is None else part.reshape(-1, *part.shape[len(sizes):]) for part
                in torch.autograd.grad(losses.sum(), [*leaves, *copies.values()], allow_unused=True)]
        seen = [Seen(self._uses[place], into.reshape(-1, *into.shape[len(sizes):]), part)
                for place, into in zip(self._pass.places, ins, strict=True) if (part := back[place]) is not None]
        return seen, {name: part for name, part in zip(copies, back[len(leaves):], strict=True) if part is not None}

    @property
    def effort(self) -> tuple[int, int]:
        """Of one row's pass, after the first: how many functions it calls one after the other, about, and how many
        multiplications they make.
        """
        uses = self._uses or []
        return (sum(use.shape[0] if use.in_steps else 1 for use in uses),
                sum(0 if use.table else use.shape.numel() * use.inputs for use in uses))

    def _of_row(self, shared: Tensors, copies: Tensors, leaves: Sequence[torch.Tensor],
                *row: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
        self._pass = now = _Pass({id(copy): name for name, copy in copies.items()}, shared, leaves, self._uses)
        with self:
            loss = self._loss(copies, *row)
        return loss, now.ins

    # -- uses

    def linear(self, func: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """As `Mapped`."""
        if (name := self._pass.name(weight)) is None:
            return super().linear(func, x, weight, bias)
        out = func(x.reshape(-1, x.shape[-1]), self._pass.shared[name])     # torch maps more dimensions to as many products
        out = out.reshape(*x.shape[:-1], out.shape[-1])
        taped = self._pass.taped(Use(name, self._pass.name(bias), out.shape, weight.shape[1]), x, out, bias)
        return super().linear(func, x, weight, bias) if taped is None else taped

    def convolution(self, func: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None,
                    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> torch.Tensor:
        """As `Mapped`."""
        how = stride, padding, dilation, groups
        if (name := self._pass.name(weight)) is None:
            return super().convolution(func, x, weight, bias, *how)
        out = func(x, self._pass.shared[name], None, *how)
        use = Use(name, self._pass.name(bias), out.shape, weight[0].numel(), Window.of(weight.shape, *how))
        taped = self._pass.taped(use, x, out, None if bias is None else _by_channel(bias, use))
        return super().convolution(func, x, weight, bias, *how) if taped is None else taped

    def embedding(self, func: Any, x: torch.Tensor, weight: torch.Tensor, padding_idx: int | None = None,
                  max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
                  sparse: bool = False) -> torch.Tensor:
        """As `Mapped`."""
        name = self._pass.name(weight)
        if name is None or max_norm is not None or scale_grad_by_freq:
            return super().embedding(func, x, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
        out = super().embedding(func, x, self._pass.shared[name])
        untrained = None if padding_idx is None else padding_idx % len(weight)
        taped = self._pass.taped(Use(name, None, out.shape, 1, table=True, untrained=untrained), x, out, None)
        return super().embedding(func, x, weight, padding_idx) if taped is None else taped

    def recurrence(self, weight: torch.Tensor, bias: torch.Tensor | None, cell: Cell, brought_T: torch.Tensor,
                   state: State) -> tuple[list[torch.Tensor], State]:
        """As `Mapped`."""
        now, told, before = self._pass, list[torch.Tensor](), list[torch.Tensor]()
        if (name := now.name(weight)) is None:
            return super().recurrence(weight, bias, cell, brought_T, state)
        use = Use(name, now.name(bias), torch.Size([len(brought_T), *state[0].shape[:-1], len(weight)]), weight.shape[1],
                  in_steps=True)
        leaf_T = now.take(use)
        if leaf_T is None:
            return super().recurrence(weight, bias, cell, brought_T, state)
        for brought, leaf in zip(brought_T, leaf_T, strict=True):
            before.append(state[0])
            state = cell(brought, functional.linear(state[0], now.shared[name]) + leaf, state)
            told.append(state[0])
        now.ins.append(torch.stack(before).detach())
        return told, state


class _Pass:
    """One forward pass of a row."""

    def __init__(self, names: Mapping[int, str] | None = None, shared: Tensors | None = None,
                 leaves: Sequence[torch.Tensor] = (), planned: list[Use] | None = None):
        self._names, self.shared, self._leaves, self._planned = names or {}, shared or {}, leaves, planned
        self.uses: list[Use] = []
        """What is used, where nothing is planned yet."""
        self.places: list[int] = []
        """Which of the planned uses came, in their order."""
        self.ins: list[torch.Tensor] = []

    def name(self, tensor: torch.Tensor | None) -> str | None:
        """Of the parameter that this is, if it is one."""
        return None if tensor is None else self._names.get(id(tensor))

    def take(self, use: Use) -> torch.Tensor | None:
        """The leaf of the next planned use that is this one; None: there is none."""
        if self._planned is None:
            self.uses.append(use)
            return None
        after = self.places[-1] + 1 if self.places else 0
        place = next((place for place in range(after, len(self._planned)) if self._planned[place] == use), None)
        if place is None:
            return None
        self.places.append(place)
        return self._leaves[place]

    def taped(self, use: Use, into: torch.Tensor, out: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor | None:
        """What comes out, with its bias, recorded; None: there is no place for it."""
        if (leaf := self.take(use)) is None:
            return None
        self.ins.append(into.detach())
        return out + leaf if use.bias is not None or bias is None else out + leaf + bias


def _leaf(use: Use, parameters: Tensors, sizes: tuple[int, ...]) -> torch.Tensor:
    """What is added to what comes out: the bias, or zeros. Its gradient is what comes back."""
    if use.bias is None:
        return parameters[use.weight].new_zeros(()).expand(*sizes, *use.shape)
    bias = parameters[use.bias].detach()
    return _expanded(_by_channel(bias, use), sizes, use.shape)


def _expanded(value: torch.Tensor, sizes: tuple[int, ...], shape: torch.Size) -> torch.Tensor:
    """Each model's value for all its rows; no copy."""
    models, own = sizes[:-1], value.shape[len(sizes) - 1:]
    return value.detach().reshape(*models, *[1] * (1 + len(shape) - len(own)), *own).expand(*sizes, *shape)


def _by_channel(bias: torch.Tensor, use: Use) -> torch.Tensor:
    """A bias, (…, O), as it is added to what comes out."""
    return bias if use.window is None else bias.reshape(*bias.shape, *[1] * len(use.window.kernel))
