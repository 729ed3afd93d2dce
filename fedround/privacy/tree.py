"""Noise for the prefix sums of a sequence (binary tree aggregation).

Dwork et al. 2010 (doi 10.1145/1806689.1806787); in training: DP-FTRL (Kairouz et al. 2021, arXiv:2103.00039).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]


def depth(steps: int) -> int:
    """How many nodes of the tree over `steps` leaves one leaf is in, at most: floor(log2(steps)) + 1.

    A record in one step is in so many noised sums, so the whole tree costs what one Gaussian release costs whose noise is
    sqrt(depth) times smaller, also if later steps depend on earlier outputs.
    """
    return steps.bit_length()


class TreeNoise:
    """What to add in each step, so that the sum of the first t steps bears the noise of bit_count(t) nodes.

    Node by node: a complete dyadic interval of steps, with one draw of noise, which leaves when a larger interval covers it.
    Memory: one vector for each level.
    """

    def __init__(self, draw: Callable[[], Int64]):
        self._draw = draw
        self._nodes: list[Int64] = []     # of the intervals that make up the first t steps, longest first
        self._steps = 0

    def next(self) -> Int64:
        """The noise that step t adds to the prefix sum, minus what it takes away."""
        self._steps += 1
        fresh = self._draw()
        covered = (self._steps & -self._steps).bit_length() - 1       # as many shorter intervals end here
        leaving = self._nodes[len(self._nodes) - covered:]
        self._nodes = [*self._nodes[:len(self._nodes) - covered], fresh]
        return fresh - np.sum(leaving, axis=0) if leaving else fresh.copy()
