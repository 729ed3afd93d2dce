"""The gradients of many rows by one parameter, in the form that costs least: their lengths, and their clipped sum.

A row's vector is cut to whole cells (`fedround.privacy.noise`) and added exactly, in any order. Of the rows of one pass that
is done in integers of 32 bits, or in float64, where no sum of whole numbers reaches 2**53; where cells are too small for
that, a row's vector is cut to multiples of a power of two of them, which are whole cells, too.

Legend: S sites, B rows, D the parameter's coordinates, P places of a row, I and O numbers that go into and come out of a
place, V lines of a table, E numbers of a line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from fedround.learning.tape import Tensors
from fedround.learning.uses import Seen

TILE = {"cpu": 1 << 16}
"""Numbers that are worked on at once, by device: they stay in the processor's cache."""

_TILE = 1 << 26

SHORT, LONG = 1 << 31, 1 << 52
"""Sums of whole numbers that are smaller are exact: of integers of 32 bits, and of float64."""

_RUN = 256
"""Numbers whose squares are added in float32 before float64 goes on."""

_RUN_ERROR = (_RUN + 4) * 2.0 ** -24 * 1.01
"""Of their sum, whatever the order in which they are added (Higham 2002, lemma 3.1)."""

_SMALLEST, _LARGEST = 1e-15, 1e15
"""Lengths of which float32 can be trusted with the squares."""

_LOST = 2.0 ** -149
"""More than the square of a number that is zero in float32."""

_GREATEST = 1e38
"""Of shares, which float32 must be able to hold."""

_SHORTEST = 1e-25
"""A vector that is shorter is cut to fewer numbers than others, or to nothing."""


class Gradients(Protocol):
    """Of B rows."""

    def squares(self) -> torch.Tensor:
        """Their squared lengths, (B,), float64."""

    def add_to(self, total_D: torch.Tensor, share_B: torch.Tensor, longest: float) -> None:
        """Add every row's vector times its share (float64), cut to whole numbers, to a sum in integers of 64 bits.

        longest: no vector times its share is longer, and what is added for it is no longer either. It depends on `longest`,
        on B and on that row alone.
        """

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
        """As `Gradients`; of long vectors a bound: never less, and more by 3.2e-5 at most."""
        width = self.part_BD.shape[1]
        if width < 4 * _RUN:
            return _length(self.part_BD, torch.float64).square()
        whole = width - width % _RUN
        length_BR = _length(self.part_BD[:, :whole].reshape(-1, whole // _RUN, _RUN), torch.float32).double()
        squares_B = length_BR.square().sum(1) * (1 + _RUN_ERROR) + width * _LOST
        squares_B += _length(self.part_BD[:, whole:], torch.float64).square()
        trusted_B = ((length_BR == 0) | ((length_BR > _SMALLEST) & (length_BR < _LARGEST))).all(1)
        if bool(trusted_B.all()):
            return squares_B
        return torch.where(trusted_B, squares_B, _length(self.part_BD, torch.float64).square())

    def add_to(self, total_D: torch.Tensor, share_B: torch.Tensor, longest: float) -> None:
        """As `Gradients`."""
        unit = _unit(longest * len(self.part_BD), SHORT)
        share_B1 = (share_B / unit).clamp(max=_GREATEST).float()[:, None]
        some = max(1, _tile(self.part_BD) // max(self.part_BD.shape[1], 1))
        for part, share in zip(torch.split(self.part_BD, some), torch.split(share_B1, some), strict=True):
            total_D.add_((part * share).int().sum(0, dtype=torch.int32), alpha=unit)

    def weighted(self, share_SB: torch.Tensor) -> torch.Tensor:
        """As `Gradients`."""
        return (share_SB[:, None, :] @ self.part_BD.reshape(*share_SB.shape, -1))[:, 0]

    def without(self, gone_B: torch.Tensor) -> Dense:
        """As `Gradients`."""
        return Dense(_zeroed(self.part_BD, gone_B))

    def dense(self) -> torch.Tensor:
        """As `Gradients`."""
        return self.part_BD


@dataclass(frozen=True, eq=False)
class Outer:
    """Of a matrix that is used at one place: a product of two vectors, (B, O) and (B, I), that is never made as a whole."""

    left_BO: torch.Tensor
    right_BI: torch.Tensor

    def squares(self) -> torch.Tensor:
        """As `Gradients`; of exact products. Those in float32 are longer by 6e-8 of their length at most."""
        return (_length(self.left_BO, torch.float64) * _length(self.right_BI, torch.float64)).square()

    def add_to(self, total_D: torch.Tensor, share_B: torch.Tensor, longest: float) -> None:
        """As `Gradients`. Both vectors are cut to whole numbers towards zero, so neither gets longer, nor does their product:
        whole numbers, which a product of matrices adds up exactly in float64.
        """
        unit = _unit(longest * len(self.left_BO), LONG)
        half = math.sqrt(longest / unit)            # as long as either vector is
        length_B = _length(self.right_BI, torch.float64)
        right_BI = (self.right_BI * (half / length_B.clamp(min=_SHORTEST)).float()[:, None]).int()
        left_BO = (self.left_BO * (length_B * share_B / (half * unit))[:, None]).int()
        cells_OI = left_BO.double().T @ right_BI.double()
        total_D.view(cells_OI.shape).add_(cells_OI.long(), alpha=unit)

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

    def add_to(self, total_D: torch.Tensor, share_B: torch.Tensor, longest: float) -> None:
        """As `Gradients`."""
        cells_ME = (self.part_BPE * share_B.clamp(max=_GREATEST).float()[:, None, None]).long().flatten(0, 1)
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


def _length(part: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Of vectors along the last dimension."""
    length: torch.Tensor = torch.linalg.vector_norm(part, dim=-1, dtype=dtype)
    return length


def _unit(largest: float, bound: int) -> int:
    """The least power of two in whose multiples a sum of at most `largest` stays below half of the bound."""
    return 1 << max(0, math.ceil(math.log2(max(largest, 1.0) / bound)) + 1)


def _tile(like: torch.Tensor) -> int:
    return TILE.get(like.device.type, _TILE)


def _zeroed(part: torch.Tensor, gone_B: torch.Tensor) -> torch.Tensor:
    return part.masked_fill(gone_B.reshape(-1, *[1] * (part.dim() - 1)), 0)
