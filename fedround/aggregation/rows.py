"""The numbers of an update, read by ranges.

Legend: B coordinates of one range.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedround.aggregation.noise_law import NoiseLaw
from fedround.errors import ContractError

Coordinates = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


class Numbers(Protocol):
    """A vector of float32 that can be read by ranges any number of times, always with the same result."""

    def read(self, start: int, out_B: Coordinates) -> None:
        """Fill `out_B` (contiguous) with the numbers from coordinate `start` on.

        Raises ContractError ("ends after 7 coordinates") if there are fewer.
        """


@dataclass(frozen=True)
class FileNumbers:
    """Little-endian float32 in a local file, from `offset` bytes on."""

    path: Path
    offset: int

    def read(self, start: int, out_B: Coordinates) -> None:
        """As `Numbers`."""
        # Positional reads into the caller's buffer. A memory map would count as memory that the process holds, and a file
        # that is kept open could neither be sent to another process nor be forgotten.
        file = os.open(self.path, os.O_RDONLY)
        try:
            wanted, have = out_B.data.cast("B"), 0
            while have < len(wanted):
                got = os.preadv(file, [wanted[have:]], self.offset + 4 * start + have)
                if got == 0:
                    raise ContractError(f"ends after {start + have // 4} coordinates")
                have += got
        finally:
            os.close(file)
        if sys.byteorder == "big":
            out_B.byteswap(inplace=True)


@dataclass(frozen=True, eq=False)
class ArrayNumbers:
    """Numbers in memory."""

    array_D: Coordinates

    def read(self, start: int, out_B: Coordinates) -> None:
        """As `Numbers`."""
        there_B = self.array_D[start:start + len(out_B)]
        if len(there_B) < len(out_B):
            raise ContractError(f"ends after {len(self.array_D)} coordinates")
        out_B[:] = there_B


@dataclass(frozen=True)
class Row:
    """One site's update: the numbers, the weight that was agreed for them, and the law of the noise in them."""

    site: str
    weight: float
    """From the federation file; never the site's own claim."""
    numbers: Numbers
    law: NoiseLaw | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ContractError(f"site '{self.site}' has weight {self.weight}; a weight is finite and above 0")

    def read(self, start: int, out_B: Coordinates) -> None:
        """As `Numbers`; an error names the site."""
        try:
            self.numbers.read(start, out_B)
        except ContractError as error:
            raise ContractError(f"site '{self.site}': its update {error}") from None


def cohort(rows: Sequence[Row], coordinates: int) -> tuple[Row, ...]:
    """The rows in the order of their sites, whatever the order of arrival.

    Raises ContractError if there is nothing to aggregate, or a site has two rows.
    """
    if not rows or coordinates < 1:
        raise ContractError(f"there is nothing to aggregate: {len(rows)} updates of {coordinates} coordinates")
    ordered = tuple(sorted(rows, key=lambda row: row.site))
    for one, other in pairwise(ordered):
        if one.site == other.site:
            raise ContractError(f"site '{one.site}' has two updates in one round; it may have one")
    return ordered


@dataclass(frozen=True)
class Excerpt:
    """Windows of a longer vector, one after the other, as a vector of their own."""

    numbers: Numbers
    starts: tuple[int, ...]
    width: int

    def read(self, start: int, out_B: Coordinates) -> None:
        """As `Numbers`."""
        have = 0
        while have < len(out_B):
            window, skipped = divmod(start + have, self.width)
            piece_B = out_B[have:have + self.width - skipped]
            self.numbers.read(self.starts[window] + skipped, piece_B)
            have += len(piece_B)


def sampled(points: Sequence[Numbers], coordinates: int) -> Coordinates:
    """The same few thousand coordinates of every point, from all over the model: (P, S), S <= 4096."""
    width = min(coordinates, 256)
    starts = tuple(sorted({turn * (coordinates - width) // 15 for turn in range(16)}))
    sample_PS = np.empty((len(points), len(starts) * width), np.float32)
    for point, sample_S in zip(points, sample_PS, strict=True):
        Excerpt(point, starts, width).read(0, sample_S)
    return sample_PS
