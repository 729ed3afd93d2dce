"""The parts of a model: the part that travels, the private part that stays at its site, and the frozen part that nobody
trains.

What travels is what plans call the model: its names and shapes stand in `Plan.tensors`. The others are the model's rest:
one file in the store, by digest, which every plan of a run names (`Plan.rest`). It holds the frozen tensors and the initial
private part. The trained private part never leaves its site.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from fedround.codec import Schema, Tensors
from fedround.errors import ContractError
from fedround.learning.spec import Parts
from fedround.values import TensorSpec

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, eq=False)
class Rest:
    """What a model has besides what travels."""

    private: Tensors = field(default_factory=dict)
    """Trained at the site and kept there; with the statistics of private normalisation layers."""
    frozen: Tensors = field(default_factory=dict)
    """Trained by nobody."""

    @property
    def whole(self) -> Tensors:
        """All of it, by name."""
        return {**self.private, **self.frozen}


WHOLE, NO_REST = Parts(), Rest()
"""A model that travels as a whole: nothing is agreed about its parts, and there are no other tensors."""


@dataclass(frozen=True)
class Schemas:
    """Names and shapes of a model's parts, each sorted by name."""

    shared: Schema
    private: Schema
    frozen: Schema

    @property
    def rest(self) -> Schema:
        """The schema of the parts that do not travel."""
        return tuple(sorted((*self.private, *self.frozen), key=lambda spec: spec.name))

    def rest_of(self, tensors: Tensors) -> Rest:
        """The private and the frozen part of `tensors`."""
        return Rest(*({spec.name: tensors[spec.name] for spec in part} for part in (self.private, self.frozen)))


def divide(model: nn.Module, parts: Parts, name: str) -> Schemas:
    """The model's parts. A parameter is frozen if a pattern says so or the model does not train it (requires_grad False).

    Buffers are constants of the recipe, but the floating-point ones that a private pattern names: statistics of
    normalisation layers, which are kept with the site's private part.
    Raises ContractError, naming the recipe, for a pattern that fits nothing, for a part that is both private and frozen, and
    if nothing is left to travel.
    """
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    for pattern in (*parts.private, *parts.frozen):
        if not any(fnmatchcase(part, pattern) for part in parameters):
            raise ContractError(f"recipe '{name}': its model has no parameter that fits the pattern '{pattern}' of 'parts'; "
                                f"its parameters are {_some(parameters)}")
    private = {part for part in (*parameters, *buffers) if _fits(part, parts.private)}
    frozen = {part for part, value in parameters.items() if _fits(part, parts.frozen) or not value.requires_grad}
    if both := private & frozen:
        raise ContractError(f"recipe '{name}': {_some(both)} would be private, which is trained, and frozen, which is not")
    shared = parameters.keys() - private - frozen
    if not shared:
        raise ContractError(f"recipe '{name}': every parameter is private or frozen, so nothing would travel")
    kept = {part for part in private if part in parameters or buffers[part].is_floating_point()}
    tensors = {**parameters, **buffers}
    return Schemas(*(tuple(TensorSpec(name=part, shape=tuple(tensors[part].shape)) for part in sorted(names))
                     for names in (shared, kept, frozen)))


def furnish(model: nn.Module, tensors: Tensors) -> None:
    """Put these numbers into the model's parameters and buffers of these names."""
    import torch

    places = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with torch.no_grad():
        for part, array in tensors.items():
            places[part].copy_(torch.from_numpy(array))


def mixes_rows(model: nn.Module) -> list[str]:
    """The parts of the model that look at a whole batch: normalisation by its statistics."""
    from torch.nn.modules.batchnorm import _NormBase

    return [part for part, module in model.named_modules() if isinstance(module, _NormBase)]


def _fits(part: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(part, pattern) for pattern in patterns)


def _some(names: Iterable[str]) -> str:
    found = sorted(names)
    return ", ".join(f"'{part}'" for part in found[:5]) + (" …" if len(found) > 5 else "")
