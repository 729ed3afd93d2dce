"""Random changes of a row's inputs that leave its target as it is, agreed in the plan.

Rows are changed where the loss is computed, so that all copies of a record are one record: their losses are averaged, and the
mean's gradient is clipped once. So whatever is agreed here, a record moves a sum by the clip norm at most (multiplicities: De
et al. 2022, arXiv:2204.13650).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from fedround.errors import ContractError
from fedround.values import Value

if TYPE_CHECKING:
    import torch

    from fedround.learning.batch import Batch, Tensors

MAX_COPIES = 64


class Augmentation(Value):
    """How a row's copies are changed; whole numbers and truths among its inputs (words, masks) stay as they are.

    In TOML: `augmentation = {copies = 4, shift = 2}`. Every copy is one more pass through the model.
    """

    copies: Annotated[int, Field(ge=1, le=MAX_COPIES)] = 1
    """Of every row, each changed by draws of its own."""
    noise: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """The standard deviation of what is added to every number, in units of the encoded numbers."""
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The chance of every number to be replaced by zero."""
    shift: Annotated[int, Field(ge=0, le=1000)] = 0
    """Pictures (the last two dimensions) are moved by up to so many places in both directions; zeros come in."""
    flip: bool = False
    """Whether every second picture, by chance, is mirrored, left and right."""

    @model_validator(mode="after")
    def _check_change(self) -> Self:
        if not (self.noise or self.drop or self.shift or self.flip):
            raise ValueError("an augmentation changes something: say noise, drop, shift or flip, or leave it out")
        return self

    def __call__(self, batch: Batch) -> Batch:
        """Of B rows, B · copies: a row's copies stand together. Draws from torch's own generator. Raises as `changed`."""
        targets = {name: part.repeat_interleave(self.copies, 0) for name, part in batch.targets.items()}
        return batch._replace(inputs=self.changed(batch.inputs), targets=targets)

    def changed(self, inputs: Tensors) -> Tensors:
        """The inputs of every copy.

        Raises ContractError if pictures are to be moved or mirrored, and no input is one.
        """
        pictures = [name for name, part in inputs.items() if part.is_floating_point() and part.dim() > 2]
        if (self.shift or self.flip) and not pictures:
            raise ContractError("the plan's augmentation moves or mirrors pictures, and no input of the recipe is one: "
                                "expected floating-point arrays of (rows, …, height, width); agree on 'noise' or 'drop'")
        copied = {name: part.repeat_interleave(self.copies, 0) for name, part in inputs.items()}
        for name in pictures:
            copied[name] = self._moved(copied[name])
        return {name: self._blurred(part) if part.is_floating_point() else part for name, part in copied.items()}

    def _moved(self, part: torch.Tensor) -> torch.Tensor:
        import torch

        if self.shift:
            for dimension in (part.dim() - 2, part.dim() - 1):
                part = _shifted(part, dimension, self.shift)
        if self.flip:
            mirrored_B = torch.rand(len(part), device=part.device) < 0.5
            part = torch.where(_as(mirrored_B[:, None], part, 1), part.flip(-1), part)
        return part

    def _blurred(self, part: torch.Tensor) -> torch.Tensor:
        import torch

        if self.noise:
            part = part + self.noise * torch.randn_like(part)
        return part.masked_fill(torch.rand_like(part) < self.drop, 0) if self.drop else part


def _shifted(part: torch.Tensor, dimension: int, most: int) -> torch.Tensor:
    """Every row by a draw of its own."""
    import torch

    rows, size = len(part), part.shape[dimension]
    by_B1 = torch.randint(-most, most + 1, (rows, 1), device=part.device)
    from_BP = torch.arange(size, device=part.device) - by_B1
    inside = _as((from_BP >= 0) & (from_BP < size), part, dimension)
    return part.gather(dimension, _as(from_BP.clamp(0, size - 1), part, dimension).expand_as(part)).masked_fill(~inside, 0)


def _as(along_BP: torch.Tensor, part: torch.Tensor, dimension: int) -> torch.Tensor:
    """(B, P) as it goes with `part`, whose dimension of size P this is."""
    sizes = [1] * part.dim()
    sizes[0], sizes[dimension] = along_BP.shape
    return along_BP.reshape(sizes)
