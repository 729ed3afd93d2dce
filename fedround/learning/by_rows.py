"""The gradients of many rows by one parameter, in the form that costs least: their lengths, and their clipped sum.

A row's vector is cut to whole cells (`fedround.privacy.noise`) and added exactly, in any order.

Legend: S sites, B rows, D the parameter's coordinates, P places of a row, I and O numbers that go into and come out of a
place, V lines of a table, E numbers of a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from fedround.learning.tape import Tensors
from fedround.learning.uses import Seen

TILE = {"cpu": 1 << 16}
"""Numbers that are worked on at once, by device: they stay in the processor's cache."""

_TILE = 1 << 26

LARGEST_SHORT = 1 << 31
"""Sums of whole numbers that are smaller are made of numbers of 32 bits: half the time, the same result."""


class Gradients(Protocol):
    """Of B rows."""

    def squares(self) -> torch.Tensor:
        """Their squared lengths, (B,), float64."""

    def add_to(self, total_D: torch.Tensor, share_B: torch.Tensor) -> None:
        """Add every row's vector times its share (float64), cut to whole numbers, to a sum in float64."""

    def weighted(self, share_SB: torch.Tensor) -> torch.Tensor:
        """Of stacked sites: each one's sum of its rows' vectors times their shares, (S, D). Not exact: it protects nobody."""

    def without(self, gone_B: torch.Tensor) -> Gradients:
        """The same, with zeros for these rows, whatever their numbers are."""

    def dense(self) -> torch.Tensor:
        """As they are, (B, D)."""


@dataclass(frozen=True, eq=False)
class Dense:
    """As they are."""

    part_BD: torch.Tensor

    def squares(self) -> torch.Tensor:
        """As `Gradients`."""
        return torch.stack([tile.double().square_().sum(1) for tile in self._tiles()]).sum(0)

    def add_to(self, total_D: torch.Tensor, share_B: torch.Tensor) -> None:
        """As `Gradients`."""
        start = 0
        for tile in self._tiles():
            cells = (tile * share_B.float()[:, None]).trunc_()
            total_D[start:start + tile.shape[1]] += cells.sum(0, dtype=torch.float64)
            start += tile.shape[1]

    def weighted(self, share_SB: torch.Tensor) -> torch.Tensor:
        """As `Gradients`."""
        return (share_SB[:, None, :] @ self.part_BD.reshape(*share_SB.shape, -1))[:, 0]

    def without(self, gone_B: torch.Tensor) -> Dense:
        """As `Gradients`."""
        return Dense(_zeroed(self.part_BD, gone_B))

    def dense(self) -> torch.Tensor:
        """As `Gradients`."""
        return self.part_BD

    def _tiles(self) -> Iterator[torch.Tensor]:
        width = max(1, _tile(self.part_BD) // len(self.part_BD))
        return (self.part_BD[:, start:start + width] for start in range(0, self.part_BD.shape[1], width))


@dataclass(frozen=True, eq=False)
class Outer:
    """Of a matrix that is used at one place: a product of two vectors, (B, O) and (B, I), that is never made as a whole."""

    left_BO: torch.Tensor
    right_BI: torch.Tensor

    def squares(self) -> torch.Tensor:
        """As `Gradients`; of exact products. Those in float32 are longer by 6e-8 of their length at most."""
        return Dense(self.left_BO).squares() * Dense(self.right_BI).squares()

    def add_to(self, total_D: torch.Tensor, share_B: torch.Tensor) -> None:
        """As `Gradients`. What is multiplied in float32 is a vector of length 1 and one as long as the result: neither
        overflows.
        """
        rows, inputs = self.right_BI.shape
        length_B1 = Dense(self.right_BI).squares().sqrt()[:, None].clamp(min=1e-300)
        right_BI = (self.right_BI / length_B1).float()
        left_BO = (self.left_BO * (length_B1 * share_B[:, None])).float()
        largest = float((left_BO.abs().amax(1) * right_BI.abs().amax(1)).max())
        short = rows * largest < LARGEST_SHORT * (1 - 1e-6)
        total_OI, lines = total_D.view(-1, inputs), max(1, _tile(total_D) // (rows * inputs))
        for top in range(0, len(total_OI), lines):
            left = left_BO[:, top:top + lines]
            tile = left.new_empty(rows, left.shape[1], inputs)      # in one piece: torch would choose another order
            torch.mul(left[:, :, None], right_BI[:, None, :], out=tile)
            cells = tile.int().sum(0, dtype=torch.int32) if short else tile.trunc_().sum(0, dtype=torch.float64)
            total_OI[top:top + lines] += cells

    def weighted(self, share_SB: torch.Tensor) -> torch.Tensor:
        """As `Gradients`."""
        left_SBO, right_SBI = (part.reshape(*share_SB.shape, -1) for part in (self.left_BO, self.right_BI))
        return ((left_SBO * share_SB[:, :, None]).transpose(1, 2) @ right_SBI).flatten(1)

    def without(self, gone_B: torch.Tensor) -> Outer:
        """As `Gradients`."""
        return Outer(_zeroed(self.left_BO, gone_B), _zeroed(self.right_BI, gone_B))

    def dense(self) -> torch.Tensor:
        """As `Gradients`."""
        return (self.left_BO[:, :, None] * self.right_BI[:, None, :]).flatten(1)


@dataclass(frozen=True, eq=False)
class Lines:
    """Of a table: which lines a row reads, (B, P), each once, and what is added to them, (B, P, E)."""

    lines_BP: torch.Tensor
    part_BPE: torch.Tensor
    size: int

    @classmethod
    def of(cls, seen: Seen, size: int) -> Lines:
        """A line that a row reads twice gets both parts at the first of its places, and zeros at the other."""
        lines_BP, part_BPE = seen.places(), seen.back_B.reshape(len(seen.back_B), -1, seen.back_B.shape[-1])
        same_BPP = lines_BP[:, :, None] == lines_BP[:, None, :]
        first_BP = ~same_BPP.tril(-1).any(2)
        if seen.use.untrained is not None:
            first_BP &= lines_BP != seen.use.untrained
        return cls(lines_BP, torch.bmm((same_BPP & first_BP[:, :, None]).to(part_BPE.dtype), part_BPE), size)

    def squares(self) -> torch.Tensor:
        """As `Gradients`."""
        return Dense(self.part_BPE.flatten(1)).squares()

    def add_to(self, total_D: torch.Tensor, share_B: torch.Tensor) -> None:
        """As `Gradients`."""
        cells_ME = (self.part_BPE * share_B.float()[:, None, None]).trunc_().flatten(0, 1).double()
        total_D.view(self.size, -1).index_add_(0, self.lines_BP.flatten(), cells_ME)

    def weighted(self, share_SB: torch.Tensor) -> torch.Tensor:
        """As `Gradients`."""
        part_SME = (self.part_BPE * share_SB.reshape(-1, 1, 1)).reshape(len(share_SB), -1, self.part_BPE.shape[2])
        lines_SME = self.lines_BP.reshape(len(share_SB), -1, 1).expand_as(part_SME)
        tables = part_SME.new_zeros(len(share_SB), self.size, part_SME.shape[2])
        return tables.scatter_add_(1, lines_SME, part_SME).flatten(1)

    def without(self, gone_B: torch.Tensor) -> Lines:
        """As `Gradients`."""
        return Lines(self.lines_BP, _zeroed(self.part_BPE, gone_B), self.size)

    def dense(self) -> torch.Tensor:
        """As `Gradients`."""
        table_BVE = self.part_BPE.new_zeros(len(self.part_BPE), self.size, self.part_BPE.shape[2])
        return table_BVE.scatter_add_(1, self.lines_BP[:, :, None].expand_as(self.part_BPE), self.part_BPE).flatten(1)


def by_parameter(shapes: Mapping[str, torch.Size], seen: Sequence[Seen], own: Tensors) -> dict[str, Gradients]:
    """The gradients of every parameter that took part, from what a tape saw. shapes: of the parameters."""
    parts: dict[str, list[Gradients]] = {name: [Dense(part.flatten(1))] for name, part in own.items()}
    for use in seen:
        parts.setdefault(use.use.weight, []).append(_of_weight(use, shapes[use.use.weight]))
        if use.use.bias is not None:
            parts.setdefault(use.use.bias, []).append(_of_bias(use))
    return {name: some[0] if len(some) == 1 else Dense(torch.stack([part.dense() for part in some]).sum(0))
            for name, some in parts.items()}


def _of_weight(seen: Seen, shape: torch.Size) -> Gradients:
    if seen.use.table:
        return Lines.of(seen, shape[0])
    in_BGPI, back_BGPO = seen.ins(), seen.backs()
    if in_BGPI.shape[1:3] == (1, 1):
        return Outer(back_BGPO[:, 0, 0], in_BGPI[:, 0, 0])
    return Dense((back_BGPO.transpose(2, 3) @ in_BGPI).flatten(1))


def _of_bias(seen: Seen) -> Dense:
    return Dense(seen.backs().sum(2).flatten(1))


def _tile(like: torch.Tensor) -> int:
    return TILE.get(like.device.type, _TILE)


def _zeroed(part: torch.Tensor, gone_B: torch.Tensor) -> torch.Tensor:
    return part.masked_fill(gone_B.reshape(-1, *[1] * (part.dim() - 1)), 0)
