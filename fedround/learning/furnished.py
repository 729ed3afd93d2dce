"""A recipe's model with its numbers in it, or why they do not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedround.codec import Tensors
from fedround.errors import ContractError
from fedround.learning.parts import Rest, furnish
from fedround.learning.recipe import Recipe, check_model, unfilled

if TYPE_CHECKING:
    from torch import nn


def furnished(recipe: Recipe, base: Tensors, rest: Rest, *, per_record: bool) -> nn.Module:
    """The recipe's model with its rest in it. Raises ContractError if it cannot be trained so, or the tensors are others'."""
    model = unfilled(recipe)
    check_model(model, recipe.name, rest.private, per_record=per_record)
    check_fits(recipe, model, {**base, **rest.whole})
    still = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    if wrong := sorted(still - rest.frozen.keys()):
        raise ContractError(f"recipe '{recipe.name}': its model does not train '{wrong[0]}', which is not among the frozen "
                            "tensors")
    furnish(model, rest.whole)
    return model.requires_grad_(False)


def check_fits(recipe: Recipe, model: nn.Module, tensors: Tensors) -> None:
    """Raise ContractError unless `tensors` are exactly this model's parameters, and buffers of its if any."""
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    expected |= {name: tuple(buffer.shape) for name, buffer in model.named_buffers() if name in tensors}
    if {name: array.shape for name, array in tensors.items()} != expected:
        wrong = sorted(name for name in {*expected, *tensors}
                       if name not in tensors or tensors[name].shape != expected.get(name))
        raise ContractError(f"recipe '{recipe.name}': its model and the given tensors differ in {', '.join(wrong[:5])}")
