"""How a column lies, at every width at once: counts in halves, quarters, eighths … of a public range (Hay et al. 2010,
doi 10.14778/1920841.1920970).

The count of any range is the sum of few nodes, so quantiles get noise that grows with the depth and not with the leaves.

N records.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from fedround.statistics.base import Evidence, Float64, Int64
from fedround.statistics.factors import Bounded
from fedround.statistics.grouped import GroupedSum
from fedround.statistics.sums import RowsPart, in_blocks


class DyadicCounts(GroupedSum):
    """Counts in the nodes of a binary tree over the column's bounds, level by level: 2 halves, 4 quarters, up to 2^depth
    leaves. A record with a number is in one node of each level; a number beyond the bounds is in the first or last.
    """

    word: ClassVar[str] = "quantiles"
    in_words: ClassVar[str] = "counts for quantiles"
    kind: Literal["dyadic_counts"] = "dyadic_counts"
    of: Bounded
    depth: Annotated[int, Field(ge=1, le=12)]

    @property
    def labels(self) -> tuple[str, ...]:
        """As `GroupedSum`."""
        return tuple(f"part {part + 1} of {2 ** level}" for level in range(1, self.depth + 1) for part in range(2 ** level))

    @property
    def of_columns(self) -> tuple[str, ...]:
        """As `GroupedSum`."""
        return (self.of.column,)

    @property
    def scale(self) -> float:
        """As `NoisedSum`: a record is in one node of each level."""
        return math.sqrt(self.depth)

    def possible(self, table: Float64, leeway: float) -> bool:
        """As `NoisedSum`: no node has fewer than no records."""
        return bool(table.min() >= -leeway)

    def added(self, evidence: Evidence) -> Iterator[tuple[slice, RowsPart]]:
        """As `GroupedSum`."""
        standard_N = self.of.standard(evidence)
        there_N = ~np.isnan(standard_N)
        leaf_N: Int64 = np.minimum((np.where(there_N, standard_N, 0.0) + 1) * 2 ** (self.depth - 1),
                                   2 ** self.depth - 1).astype(np.int64)
        level_K = np.arange(1, self.depth + 1)
        for block in in_blocks(len(leaf_N), self.depth):
            place_NK = (leaf_N[block, None] >> (self.depth - level_K)) + 2 ** level_K - 2
            yield block, RowsPart(np.repeat(there_N[block, None].astype(np.float64), self.depth, axis=1), place_NK)
