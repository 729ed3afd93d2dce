"""What torch's map over rows (`torch.vmap`) cannot do, done by what it can: recurrent layers, attention, tables.

Legend: T places of a sequence, I and O numbers that go into and come out of a place, … other dimensions.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import vmap
from torch.nn import functional
from torch.overrides import TorchFunctionMode

State = tuple[torch.Tensor, ...]
Cell = Callable[[torch.Tensor, torch.Tensor, State], State]
"""From what an input brings, what the last state brings, and that state, to the next; first in it is what is told."""


def mapped(function: Callable[..., Any], *stacks: Any) -> Any:
    """What `function` says of each one of the stacks: `vmap`, within which torch's functions are computed so that it can map
    them. stacks: tensors, or dictionaries and tuples of them.

    vmap gets the tensors in a row, and the mode does not see what it does with them: either would take longer than a small
    model's own functions.
    """
    def of_one(*parts: torch.Tensor) -> Any:
        left = iter(parts)
        with Mapped():
            return function(*(_as(stack, left) for stack in stacks))

    return vmap(of_one, randomness="different")(*_in_a_row(stacks))


def _in_a_row(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [leaf for part in (value.values() if isinstance(value, Mapping) else value) for leaf in _in_a_row(part)]


def _as(value: Any, left: Iterator[torch.Tensor]) -> Any:
    """The next tensors, in the form of `value`."""
    if isinstance(value, torch.Tensor):
        return next(left)
    if isinstance(value, Mapping):
        return {name: _as(part, left) for name, part in value.items()}
    made = [_as(part, left) for part in value]
    return value._make(made) if hasattr(value, "_make") else tuple(made)


class Mapped(TorchFunctionMode):
    """Entered around a model's forward pass, it sees every function of torch that the model calls, in whatever layer, and
    computes some of them otherwise: the same results up to rounding, in steps that torch can map. Dropout draws others.

    Packed sequences and states that are projected are left to torch, which cannot map them.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch instead of `func`, while this mode is off."""
        ours, named = _OURS.get(func), dict(kwargs or {})
        if ours is None:
            return func(*args, **named)
        first = (named.pop("input"),) if "input" in named else ()
        return ours(self, func, *first, *args, **named)

    def linear(self, func: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """(…, I) to (…, O)."""
        if bias is None or x.ndim != 2:
            made: torch.Tensor = func(x, weight, bias)
            return made
        made = func(x, weight)
        return made + bias      # the same bits: torch maps both at once in these two steps, and some more

    def convolution(self, func: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None,
                    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> torch.Tensor:
        """Over one dimension, two or three."""
        made: torch.Tensor = func(x, weight, bias, stride, padding, dilation, groups)
        return made

    def embedding(self, func: Any, x: torch.Tensor, weight: torch.Tensor, padding_idx: int | None = None,
                  max_norm: float | None = None, *how: Any, **more: Any) -> torch.Tensor:
        """Of a table that is a row's own: torch would take a place that it does not have from the table of another row."""
        if max_norm is None and torch._C._functorch.is_batchedtensor(weight):
            places_M = x.reshape(-1, 1)
            return weight.gather(0, places_M.expand(len(places_M), weight.shape[1])).reshape(*x.shape, weight.shape[1])
        made: torch.Tensor = func(x, weight, padding_idx, max_norm, *how, **more)
        return made

    def recurrence(self, weight: torch.Tensor, bias: torch.Tensor | None, cell: Cell, brought_T: torch.Tensor,
                   state: State) -> tuple[list[torch.Tensor], State]:
        """What a layer tells at each place, and its last state. weight, bias: of what the last state brings."""
        told = []
        for brought in brought_T:
            state = cell(brought, functional.linear(state[0], weight, bias), state)
            told.append(state[0])
        return told, state

    def _attention(self, _: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
                   attn_mask: torch.Tensor | None = None, dropout_p: float = 0.0, is_causal: bool = False, *,
                   scale: float | None = None, enable_gqa: bool = False) -> torch.Tensor:
        if enable_gqa:
            key, value = (part.repeat_interleave(query.shape[-3] // part.shape[-3], -3) for part in (key, value))
        weights = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(weights.shape[-2:], dtype=torch.bool, device=query.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            weights = weights.masked_fill(~attn_mask, -math.inf)
        elif attn_mask is not None:
            weights = weights + attn_mask
        if attn_mask is None or is_causal:
            return functional.dropout(torch.softmax(weights, -1), dropout_p) @ value
        nowhere = (weights == -math.inf).all(-1, keepdim=True)      # to look at: zeros, as torch has it
        weights = torch.softmax(weights.masked_fill(nowhere, 0.0), -1).masked_fill(nowhere, 0.0)
        return functional.dropout(weights, dropout_p) @ value

    def _heads(self, _: Any, *args: Any, **kwargs: Any) -> Any:
        with self:
            return _HEADS(*args, **kwargs)

    def _lstm(self, func: Any, x: torch.Tensor, hx: Any, params: Any, *how: Any) -> Any:
        if isinstance(hx, torch.Tensor) or hx[0].shape[-1] != hx[1].shape[-1]:
            return func(x, hx, params, *how)
        return self._layers(_lstm_cell, x, tuple(hx), params, *how)

    def _one_state(self, func: Any, x: torch.Tensor, hx: Any, params: Any, *how: Any) -> Any:
        if isinstance(params, torch.Tensor):        # then the sequences are packed
            return func(x, hx, params, *how)
        return self._layers(_CELLS[func], x, (hx,), params, *how)

    def _layers(self, cell: Cell, x: torch.Tensor, hx: State, params: Sequence[torch.Tensor], bias: bool, layers: int,
                dropout: float, train: bool, both_ways: bool, batch_first: bool) -> tuple[torch.Tensor, ...]:
        x_T, ways, last = x.transpose(0, 1) if batch_first else x, 2 if both_ways else 1, list[State]()
        of_one = 4 if bias else 2
        for layer in range(layers):
            if layer > 0 and train and dropout > 0:
                x_T = functional.dropout(x_T, dropout)
            found = []
            for way in range(ways):
                place = len(last)
                from_input, from_state, *biases = params[of_one * place:of_one * (place + 1)]
                in_bias, state_bias = biases or (None, None)
                brought_T = self.linear(functional.linear, x_T.flip(0) if way else x_T, from_input, in_bias)
                told, state = self.recurrence(from_state, state_bias, cell, brought_T, tuple(part[place] for part in hx))
                last.append(state)
                found.append(torch.stack(told[::-1] if way else told))
            x_T = torch.cat(found, -1)
        return (x_T.transpose(0, 1) if batch_first else x_T, *(torch.stack(part) for part in zip(*last, strict=True)))


def _lstm_cell(brought: torch.Tensor, from_state: torch.Tensor, state: State) -> State:
    i, f, g, o = (brought + from_state).chunk(4, -1)
    memory = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(memory), memory


def _gru_cell(brought: torch.Tensor, from_state: torch.Tensor, state: State) -> State:
    (r, z, n), (hr, hz, hn) = brought.chunk(3, -1), from_state.chunk(3, -1)
    new = torch.tanh(n + torch.sigmoid(r + hr) * hn)
    return (new + torch.sigmoid(z + hz) * (state[0] - new),)


def _unwatched(function: Any) -> Any:
    """The same function, which does not ask first whether a mode sees its calls: asked, it would come back to the mode."""
    never = dict.fromkeys(("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"), lambda *_: False)
    same = types.FunctionType(function.__code__, {**function.__globals__, **never}, argdefs=function.__defaults__)
    same.__kwdefaults__ = function.__kwdefaults__
    return same


_HEADS = _unwatched(functional.multi_head_attention_forward)
_CELLS: dict[Any, Cell] = {
    torch.gru: _gru_cell,
    torch.rnn_tanh: lambda brought, from_state, _: (torch.tanh(brought + from_state),),
    torch.rnn_relu: lambda brought, from_state, _: (torch.relu(brought + from_state),),
}
_OURS: dict[Any, Callable[..., Any]] = {
    functional.linear: lambda mode, *args, **kwargs: mode.linear(*args, **kwargs),
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d),
                    lambda mode, *args, **kwargs: mode.convolution(*args, **kwargs)),
    functional.embedding: lambda mode, *args, **kwargs: mode.embedding(*args, **kwargs),
    functional.scaled_dot_product_attention: Mapped._attention,
    functional.multi_head_attention_forward: Mapped._heads,
    torch.lstm: Mapped._lstm,
    **dict.fromkeys(_CELLS, Mapped._one_state),
}
