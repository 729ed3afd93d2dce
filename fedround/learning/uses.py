"""One use of a matrix, of a convolution or of a table by rows: what went in, and what came back.

Legend: B rows, P places of a row (words, pixels), G groups of channels, I and O numbers that go into and come out of a place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional


@dataclass(frozen=True)
class Window:
    """Which of the numbers that go into a convolution go into each of its places; sizes by dimension."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    before: tuple[int, ...]
    """How many zeros are put before a dimension."""
    after: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, weight: torch.Size, stride: Any, padding: Any, dilation: Any, groups: int) -> Window:
        """As the functions of torch take them."""
        kernel = tuple(weight[2:])
        stride, dilation = _each(stride, kernel), _each(dilation, kernel)
        if isinstance(padding, str):        # "same" puts the odd zero behind
            around = [step * (size - 1) if padding == "same" else 0 for step, size in zip(dilation, kernel, strict=True)]
            return cls(kernel, stride, tuple(size // 2 for size in around), tuple(size - size // 2 for size in around),
                       dilation, groups)
        return cls(kernel, stride, _each(padding, kernel), _each(padding, kernel), dilation, groups)

    def patches(self, in_BC: torch.Tensor) -> torch.Tensor:
        """From (pictures, channels, …) to (pictures, G, I, P)."""
        around = zip(self.before[::-1], self.after[::-1], strict=True)
        padded = functional.pad(in_BC, [size for pair in around for size in pair])
        counts = [(size - dilation * (kernel - 1) - 1) // stride + 1 for size, kernel, stride, dilation
                  in zip(padded.shape[2:], self.kernel, self.stride, self.dilation, strict=True)]
        steps = tuple(stride * step for stride, step in zip(self.stride, padded.stride()[2:], strict=True))
        within = tuple(dilation * step for dilation, step in zip(self.dilation, padded.stride()[2:], strict=True))
        seen = padded.as_strided((*padded.shape[:2], *self.kernel, *counts), (*padded.stride()[:2], *within, *steps))
        return seen.reshape(len(in_BC), self.groups, -1, math.prod(counts))


def _each(size: Any, kernel: tuple[int, ...]) -> tuple[int, ...]:
    """One number for every dimension."""
    sizes = (size,) if isinstance(size, int) else tuple(size)
    return sizes * len(kernel) if len(sizes) == 1 else sizes


@dataclass(frozen=True)
class Use:
    """One time that a matrix, or a table, is used for a row."""

    weight: str
    bias: str | None
    shape: torch.Size
    """Of what comes out."""
    inputs: int
    """How many numbers make one of them."""
    window: Window | None = None
    """Of a convolution."""
    table: bool = False
    untrained: int | None = None
    """The place of a table that gets no gradient."""
    in_steps: bool = False
    """Whether its places wait for each other."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What went in, (B, …), and the gradient of every row's loss by what came out, (B, its shape)."""

    use: Use
    in_B: torch.Tensor
    back_B: torch.Tensor

    def ins(self) -> torch.Tensor:
        """What went into every place, (B, G, P, I)."""
        if self.use.window is None:
            return self.in_B.reshape(len(self.in_B), 1, -1, self.in_B.shape[-1])
        dimensions = len(self.use.window.kernel)
        patches_MGIP = self.use.window.patches(self.in_B.reshape(-1, *self.in_B.shape[-dimensions - 1:]))
        return self._joined(patches_MGIP)

    def backs(self) -> torch.Tensor:
        """What came back to every place, (B, G, P, O)."""
        if self.use.window is None:
            return self.back_B.reshape(len(self.back_B), 1, -1, self.back_B.shape[-1])
        dimensions = len(self.use.window.kernel)
        pictures_MCP = self.back_B.reshape(-1, self.back_B.shape[-dimensions - 1], self.back_B.shape[-dimensions:].numel())
        groups = self.use.window.groups
        return self._joined(pictures_MCP.reshape(len(pictures_MCP), groups, -1, pictures_MCP.shape[-1]))

    def _joined(self, part_MGXP: torch.Tensor) -> torch.Tensor:
        """From pictures, of which a row may have several, to rows: (B, G, P, X)."""
        part_BMGXP = part_MGXP.reshape(len(self.back_B), -1, *part_MGXP.shape[1:])
        return part_BMGXP.permute(0, 2, 1, 4, 3).flatten(2, 3)

    def places(self) -> torch.Tensor:
        """Of a table: which were read, (B, P)."""
        return self.in_B.reshape(len(self.back_B), -1)
