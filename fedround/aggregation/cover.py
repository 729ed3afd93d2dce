"""Which rows to leave out so that no two of the rest are in conflict: vertex covers and matchings of small graphs.

Legend: N rows; `conflicts_NN` is symmetric, true where two rows cannot both stay. Finding a smallest cover is
NP-hard in general; with the reductions below the search branches only at rows with three or more conflicts, at most
1.47^size times, which is nothing for the few rows that may be left out here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedround.aggregation.rows import Floats

Conflicts = npt.NDArray[np.bool_]


def is_coverable(conflicts_NN: Conflicts, size: int) -> bool:
    """Whether `size` rows can be left out so that no conflict remains."""
    conflicts_NN = conflicts_NN.copy()
    while True:
        degree_N = conflicts_NN.sum(axis=1)
        most, busiest = int(degree_N.max(initial=0)), int(degree_N.argmax())
        if most == 0:
            return size >= 0
        if size * most < degree_N.sum() // 2:                           # not even `size` of the busiest would do
            return False
        if most > size:                                                 # else all its opponents would have to go
            out = busiest
        elif (degree_N == 1).any():                                     # the only opponent covers at least as much
            out = int(conflicts_NN[int((degree_N == 1).argmax())].argmax())
        elif most == 2:                                                 # rings only: whoever goes, it takes half
            out = busiest
        else:
            opponents = np.flatnonzero(conflicts_NN[busiest])
            return (is_coverable(without(conflicts_NN, [busiest]), size - 1)
                    or is_coverable(without(conflicts_NN, opponents), size - most))
        conflicts_NN, size = without(conflicts_NN, [out]), size - 1


def cover(conflicts_NN: Conflicts, size: int, order: Sequence[int]) -> list[int] | None:
    """Exactly `size` rows that can be left out so that no conflict remains, ascending; None if there are no such rows.

    order: all rows. If there are several answers, one that leaves out the first row of `order` is preferred, then the
    second, and so on. So the answer depends on the graph and the order, not on the search.
    """
    if size > len(conflicts_NN) or not is_coverable(conflicts_NN, size):
        return None
    left_out: list[int] = []
    for row in order:
        if len(left_out) == size:
            break
        rest_NN = without(conflicts_NN, [row])
        if is_coverable(rest_NN, size - len(left_out) - 1):
            conflicts_NN = rest_NN
            left_out.append(int(row))
    return sorted(left_out)


def in_every_cover(conflicts_NN: Conflicts, size: int) -> list[int]:
    """The rows that every choice of at most `size` rows must contain. To keep such a row, all its opponents would have to
    go, and then too many others.
    """
    return [row for row, opponents in enumerate(map(np.flatnonzero, conflicts_NN))
            if not is_coverable(without(conflicts_NN, opponents), size - len(opponents))]


def disjoint_conflicts(strength_NN: Floats) -> list[tuple[int, int]]:
    """Pairs of rows in conflict, strongest first, without a row in common. No conflict remains among the other rows.

    strength_NN: symmetric; zero where there is no conflict. Of equally strong conflicts the first in order is taken.
    """
    strength_NN = np.triu(strength_NN, 1)
    pairs = []
    while strength_NN.max(initial=0) > 0:
        one, other = (int(at) for at in np.unravel_index(int(strength_NN.argmax()), strength_NN.shape))
        pairs.append((one, other))
        for row in (one, other):
            strength_NN[row] = strength_NN[:, row] = 0
    return pairs


def without(conflicts_NN: Conflicts, rows: Sequence[int] | npt.NDArray[np.intp]) -> Conflicts:
    """The same graph, these rows without conflicts."""
    rest_NN = conflicts_NN.copy()
    rest_NN[rows] = rest_NN[:, rows] = False
    return rest_NN
