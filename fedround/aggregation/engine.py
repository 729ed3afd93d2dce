"""One pass over the updates of a cohort, with bounded memory.

Legend: N sites, D coordinates of the model, B of one block that is read, C of one chunk that is worked on.

Same rows, same bytes: sites in id order, float64 arithmetic, every coordinate by itself, and every sum over
coordinates made of chunks of a fixed size that are added up exactly. So the result depends neither on the order of
arrival nor on the memory budget.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedround.aggregation.rules import Floats, kernel
from fedround.errors import ContractError
from fedround.types import Rule

CHUNK = 4096
"""Coordinates worked on at once: 12 sites in float64 are 400 kB, which stay in the processor's cache."""

Coordinates = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """One admitted update: its tensors lie in a canonical file (`fedround.codec`) on local disk."""

    site: str
    weight: float
    """The agreed weight of the federation file; never the site's own claim."""
    path: Path
    offset: int
    """Where the D little-endian float32 begin, in bytes."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ContractError(f"site '{self.site}' has weight {self.weight}; a weight is finite and above 0")


@dataclass(frozen=True, eq=False)
class Aggregate:
    """What a cohort agreed on, and how far each site is from it."""

    delta_D: Coordinates
    norms: dict[str, float]
    """Euclidean norm of each site's update."""
    distances: dict[str, float]
    """Euclidean distance of each site's update to `delta_D`."""


def aggregate(rows: Sequence[Row], rule: Rule, coordinates: int, *, memory_budget_bytes: int = 64 << 20) -> Aggregate:
    """Apply `rule` to the updates in `rows`, D = `coordinates` numbers each.

    Memory: about `memory_budget_bytes` for rows (one chunk of each at least) and 4 D bytes for the result.
    Raises ContractError for an empty cohort and, naming the site, for two rows of one site, a file that is too short
    and numbers that are not finite; ToleranceError if the rule cannot bear its liars with so few rows.
    """
    rows = sorted(rows, key=lambda row: row.site)
    _check_cohort(rows, coordinates)
    apply = kernel(rule, np.array([row.weight for row in rows]))
    delta_D = np.empty(coordinates, dtype=np.float32)
    norms, distances = [], []           # squared, one (N,) per chunk
    for start, x_NC in _chunks(rows, coordinates, memory_budget_bytes):
        delta_C = delta_D[start:start + CHUNK]
        delta_C[:] = apply(x_NC.copy())
        norms.append(np.square(x_NC).sum(axis=1))
        distances.append(np.square(x_NC - delta_C).sum(axis=1))
    return Aggregate(delta_D, _per_site(rows, norms), _per_site(rows, distances))


def _check_cohort(rows: Sequence[Row], coordinates: int) -> None:
    if not rows or coordinates < 1:
        raise ContractError(f"there is nothing to aggregate: {len(rows)} updates of {coordinates} coordinates")
    for one, other in pairwise(rows):
        if one.site == other.site:
            raise ContractError(f"site '{one.site}' has two updates in one round; it may have one")


def _chunks(rows: Sequence[Row], coordinates: int, memory_budget_bytes: int) -> Iterator[tuple[int, Floats]]:
    """Every chunk of coordinates with its start, all rows, finite."""
    block = max(1, memory_budget_bytes // (4 * len(rows)) // CHUNK) * CHUNK
    for start in range(0, coordinates, block):
        block_N = [_read(row, start, min(block, coordinates - start)) for row in rows]
        for low in range(0, len(block_N[0]), CHUNK):
            x_NC = np.array([row_B[low:low + CHUNK] for row_B in block_N], dtype=np.float64)
            finite_N = np.isfinite(x_NC).all(axis=1)
            if not finite_N.all():
                raise ContractError(f"site '{rows[int(finite_N.argmin())].site}' sent numbers that are not finite")
            yield start + low, x_NC
        del block_N     # before the next block is read, or two would be held


def _read(row: Row, start: int, count: int) -> Coordinates:
    row_B = np.fromfile(row.path, dtype="<f4", count=count, offset=row.offset + 4 * start)
    if len(row_B) < count:
        raise ContractError(f"site '{row.site}': its file ends after {start + len(row_B)} coordinates")
    return row_B


def _per_site(rows: Sequence[Row], squares: list[Floats]) -> dict[str, float]:
    # fsum is exact, so the sum does not depend on how many chunks there are in a block.
    return {row.site: math.sqrt(math.fsum(sums)) for row, sums in zip(rows, zip(*squares, strict=True), strict=True)}
