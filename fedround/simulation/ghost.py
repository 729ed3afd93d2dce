"""Every row's gradient norm, and the sum of clipped gradients, without any row's gradient: for models of known layers.

A linear layer's gradient of one row is an outer product, so its norm is a product of two norms, and the sum of clipped ones
is one matrix product of what comes in and what comes back (Goodfellow 2015, arXiv:1510.01799; Li et al. 2022,
arXiv:2110.05679; Bu et al. 2023, arXiv:2210.00038). One forward and one backward pass give both.

Legend: B rows, I and O a layer's inputs and outputs, P places (pixels of a convolution, words of a sentence).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from fedround.learning.batch import Tensors, called

if TYPE_CHECKING:
    import torch
    from torch import nn


def is_known(model: nn.Module, inputs: Tensors) -> bool:
    """Whether every parameter belongs to a linear layer or a plain convolution, and each of these is used once for rows."""
    layers = {name: layer for name, layer in model.named_modules(remove_duplicate=False) if _is_known(layer)}
    owned = [id(parameter) for layer in layers.values() for parameter in layer.parameters(recurse=False)]
    alone = sorted(owned) == sorted(id(parameter) for parameter in model.parameters())
    return alone and len(uses(model, layers, inputs)) == len(layers)


def uses(model: nn.Module, layers: Mapping[str, nn.Module], inputs: Tensors) -> dict[str, torch.Size]:
    """The shape of what each layer gives for these rows. A layer that is used twice, or never, is left out."""
    import torch

    shapes: dict[str, list[torch.Size]] = {name: [] for name in layers}
    hooks = [layer.register_forward_hook(lambda _, __, out, name=name: shapes[name].append(out.shape))
             for name, layer in layers.items()]
    with torch.no_grad():
        called(model, inputs)
    for hook in hooks:
        hook.remove()
    return {name: found[0] for name, found in shapes.items() if len(found) == 1}


class Tape:
    """Put on a model once: records what goes into each layer, and adds probes to what comes out.

    The gradient of the loss with respect to a probe is what comes back to the layer. Works under `vmap`: what is recorded is
    returned by the function that is mapped.
    """

    def __init__(self, model: nn.Module):
        self.layers = {name: layer for name, layer in model.named_modules() if _is_known(layer)}
        self._probes: Mapping[str, torch.Tensor] | None = None
        self._seen: Tensors = {}
        for name, layer in self.layers.items():
            layer.register_forward_hook(self._hook(name))

    def begin(self, probes: Mapping[str, torch.Tensor]) -> None:
        """The next forward pass is recorded."""
        self._probes, self._seen = probes, {}

    def end(self) -> Tensors:
        """What went into each layer."""
        seen, self._probes, self._seen = self._seen, None, {}
        return seen

    def _hook(self, name: str) -> Callable[..., torch.Tensor]:
        def record(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            if self._probes is None:
                return output
            self._seen[name] = inputs[0]
            return output + self._probes[name]

        return record

    def squared_norms(self, inputs: Tensors, returned: Tensors) -> torch.Tensor:
        """Of every row's gradient over all layers, (B,), float64."""
        import torch

        parts = []
        for name, layer in self.layers.items():
            in_BPI, back_BPO = _by_places(layer, inputs[name], returned[name])
            if in_BPI.shape[1] == 1:
                parts.append(_square(in_BPI) * _square(back_BPO))
            else:
                parts.append(_square(torch.bmm(back_BPO.transpose(1, 2), in_BPI)))
            if layer.bias is not None:
                parts.append(_square(back_BPO.sum(1, keepdim=True)))
        return torch.stack(parts).sum(0)

    def weighted_sum(self, inputs: Tensors, returned: Tensors, share_B: torch.Tensor) -> Tensors:
        """The sum over rows of share x gradient, by parameter."""
        result: Tensors = {}
        for name, layer in self.layers.items():
            in_BPI, back_BPO = _by_places(layer, inputs[name], returned[name])
            back_BPO = back_BPO * share_B[:, None, None]
            prefix = f"{name}." if name else ""
            result[f"{prefix}weight"] = (back_BPO.flatten(0, 1).T @ in_BPI.flatten(0, 1)).reshape(layer.weight.shape)
            if layer.bias is not None:
                result[f"{prefix}bias"] = back_BPO.sum((0, 1))
        return result


def _is_known(layer: nn.Module) -> bool:
    from torch import nn

    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return type(layer) is nn.Linear


def _by_places(layer: nn.Module, in_B: torch.Tensor, back_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, P, I) and (B, P, O): a convolution is a linear layer at every place."""
    from torch import nn
    from torch.nn.functional import unfold

    if isinstance(layer, nn.Conv2d):
        patches_BIP = unfold(in_B, layer.kernel_size, layer.dilation, layer.padding, layer.stride)    # type: ignore[arg-type]
        return patches_BIP.transpose(1, 2), back_B.flatten(2).transpose(1, 2)
    return in_B.reshape(len(in_B), -1, in_B.shape[-1]), back_B.reshape(len(back_B), -1, back_B.shape[-1])


def _square(x_BPI: torch.Tensor) -> torch.Tensor:
    """In double precision: squares of float32 overflow."""
    import torch

    norm_B: torch.Tensor = torch.linalg.vector_norm(x_BPI, dim=(1, 2), dtype=torch.float64)
    return norm_B.square()
