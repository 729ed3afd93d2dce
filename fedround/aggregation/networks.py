"""Comparator networks: the order statistics of every coordinate, by minima and maxima of whole rows.

Legend: K rows. A comparator puts the smaller of two rows' values into the first and the larger into the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from fedround.aggregation.rows import Coordinates


class Comparator(NamedTuple):
    """Compares rows `low` and `high`; a result that is not needed is not computed."""

    low: int
    high: int
    minimum: bool
    maximum: bool


@cache
def sorting_network(rows: int) -> tuple[tuple[int, int], ...]:
    """Batcher's odd-even merge sort (1968) for any number of rows."""
    pairs = []
    p = 1
    while p < rows:
        k = p
        while k >= 1:
            for j in range(k % p, rows - k, 2 * k):
                for i in range(j, min(j + k, rows - k)):
                    if i // (2 * p) == (i + k) // (2 * p):
                        pairs.append((i, i + k))
            k //= 2
        p *= 2
    return tuple(pairs)


@cache
def selection_network(rows: int, low: int, high: int, *, ordered: bool) -> tuple[Comparator, ...]:
    """What brings the order statistics low … high-1 into these rows, in their order if `ordered`, else in any.

    It is the sorting network without the comparators that the wanted rows do not depend on. Going backwards, a comparator is
    removed in two cases: neither of its results is needed; or both are wanted, no later comparator uses them, and their
    order does not matter.
    """
    needed, touched, kept = set(range(low, high)), set[int](), []
    for one, other in reversed(sorting_network(rows)):
        untouched = not {one, other} & touched
        if untouched and not ordered and low <= one and other < high:
            continue
        minimum, maximum = one in needed, other in needed
        if minimum or maximum:
            kept.append(Comparator(one, other, minimum, maximum))
            needed |= {one, other}
            touched |= {one, other}
    return tuple(reversed(kept))


def run(network: Sequence[Comparator], rows: list[Coordinates], spare: Coordinates) -> None:
    """Apply a network to rows of one length; `rows` then lists where each one's values are. All are overwritten."""
    for low, high, minimum, maximum in network:
        if minimum and maximum:
            np.minimum(rows[low], rows[high], out=spare)
            np.maximum(rows[low], rows[high], out=rows[high])
            rows[low], spare = spare, rows[low]
        elif minimum:
            np.minimum(rows[low], rows[high], out=rows[low])
        else:
            np.maximum(rows[low], rows[high], out=rows[high])
