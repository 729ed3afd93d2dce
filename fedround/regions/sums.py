"""What a regional coordinator computes: the sum of what its members sent, so that anybody finds the same bytes.

Of updates, each number is the sum, in float64, of weight times update, member after member in the order of their names.
Products and sums of float64 are the same on every processor. Of masked answers it is the sum modulo 2**32. D coordinates, B
coordinates of a block.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from fedround.aggregation.rows import Coordinates, Floats, Row
from fedround.aggregation.survey import screen, why
from fedround.aggregation.verdict import Verdict
from fedround.errors import ContractError
from fedround.spoken import how_many

NUMBER_BYTES, MASKED_BYTES = 8, 4
_BLOCK = 1 << 18

UInt32 = npt.NDArray[np.uint32]


def norms(rows: Sequence[Row], size: int) -> dict[str, float]:
    """The L2 norm of every row, by site; infinite or no number for a row that is not finite."""
    found, read_B = {}, np.empty(min(size, _BLOCK), np.float32)
    for row in rows:
        squares = 0.0
        for start in range(0, size, _BLOCK):
            row.read(start, block_B := read_B[:min(_BLOCK, size - start)])
            with np.errstate(over="ignore", invalid="ignore"):
                squares += float(np.square(block_B, dtype=np.float64).sum())
        found[row.site] = math.sqrt(squares) if squares >= 0 else math.nan
    return found


def left_out(norm_of: dict[str, float]) -> dict[str, str]:
    """Whose rows no honest site sends, and why: not finite, or far longer or shorter than those of the region's others."""
    sites = sorted(norm_of)
    verdicts = screen(np.array([norm_of[site] for site in sites]))
    return {site: why(verdict) for site, verdict in zip(sites, verdicts, strict=True) if verdict is not Verdict.USED}


def add_up(rows: Sequence[Row], size: int) -> Iterator[Floats]:
    """The weighted sum of the rows, block by block. The order in which they are given does not matter."""
    ordered = sorted(rows, key=lambda row: row.site)
    read_B, total_B = np.empty(min(size, _BLOCK), np.float32), np.empty(min(size, _BLOCK))
    term_B = np.empty_like(total_B)
    for start in range(0, size, _BLOCK):
        width = min(_BLOCK, size - start)
        block_B, total, term = read_B[:width], total_B[:width], term_B[:width]
        total[:] = 0.0
        for row in ordered:
            row.read(start, block_B)
            np.multiply(block_B, np.float64(row.weight), out=term, dtype=np.float64)
            total += term
        yield total


def add_masked(files: Sequence[Path], size: int) -> Iterator[UInt32]:
    """The sum modulo 2**32 of the masked vectors in these files, block by block. Their order does not matter, and no
    member's weight: how much each counts, it has said under its masks.
    """
    for start in range(0, size, _BLOCK):
        total_B = np.zeros(min(_BLOCK, size - start), np.uint32)
        for path in files:
            total_B += np.fromfile(path, "<u4", len(total_B), offset=MASKED_BYTES * start)
        yield total_B


def written(blocks: Iterable[Floats | UInt32], file: BinaryIO) -> None:
    """Write them as they lie in the store: little-endian."""
    for block_B in blocks:
        file.write(block_B.astype(block_B.dtype.newbyteorder("<"), copy=False).data)


def mean_of(files: Sequence[Path], size: int, weight: float) -> Coordinates:
    """The partial sums in these files, added up in this order and divided by the weight of all that is in them: (D,).

    Raises ContractError, naming the file, if one does not have so many numbers, or holds one that is not finite.
    """
    if not files or not (math.isfinite(weight) and weight > 0):
        raise ContractError(f"{how_many(len(files), 'partial sum')} of weight {weight:g}: there is nothing to take the mean "
                            "of")
    mean_D = np.empty(size, np.float32)
    for path in files:
        if path.stat().st_size != NUMBER_BYTES * size:
            raise ContractError(f"{path.name}: {path.stat().st_size} bytes, expected {NUMBER_BYTES * size}")
    for start in range(0, size, _BLOCK):
        total_B = np.zeros(min(_BLOCK, size - start))
        for path in files:
            part_B = np.fromfile(path, "<f8", len(total_B), offset=NUMBER_BYTES * start)
            if not np.isfinite(part_B).all():
                raise ContractError(f"{path.name}: holds a number that is not finite")
            total_B += part_B
        with np.errstate(over="ignore"):
            mean_D[start:start + len(total_B)] = total_B / weight
    return mean_D
