"""Noise for prefix sums: few nodes in each, all of them paid for."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.privacy.noise import FINE, stream
from fedround.privacy.tree import TreeNoise, depth


class Numbered:
    """Noise of which every draw can be told from every other: the n-th is the n-th unit vector."""

    def __init__(self, size: int):
        self.size, self.count = size, 0

    def draw(self):
        self.count += 1
        return np.eye(self.size)[self.count - 1]


def nodes_of(steps: int) -> list[set[int]]:
    """Naive twin: the dyadic intervals that make up the first t steps, each by the number of the step that ends it."""
    prefixes = []
    for t in range(1, steps + 1):
        ends, left = set(), t
        while left > 0:
            ends.add(left)
            left -= left & -left
        prefixes.append(ends)
    return prefixes


@given(st.integers(1, 70))
def test_the_first_t_steps_bear_the_noise_of_bit_count_t_nodes_each_drawn_once(steps):
    source = Numbered(steps)
    tree = TreeNoise(source.draw)
    prefix = np.zeros(steps)
    for t, expected in enumerate(nodes_of(steps), start=1):
        prefix += tree.next()
        assert {int(node) + 1 for node in np.flatnonzero(prefix)} == expected
        assert set(prefix[prefix != 0]) == {1.0}
        assert len(expected) == t.bit_count()
    assert source.count == steps


@given(st.integers(1, 200))
def test_no_step_is_in_more_nodes_than_its_depth_says_and_some_step_is_in_so_many(steps):
    covered = [sum(end - (end & -end) < step <= end for end in range(1, steps + 1)) for step in range(1, steps + 1)]
    assert max(covered) == depth(steps) == math.floor(math.log2(steps)) + 1


@pytest.mark.parametrize("steps", [1, 7, 8, 13])
def test_the_variance_of_a_prefix_sum_is_bit_count_times_a_nodes(steps):
    source = stream(bytes(32), b"tree")
    tree = TreeNoise(lambda: source.cells(40_000))
    prefix = sum(tree.next() for _ in range(steps)) / FINE
    assert prefix.var() == pytest.approx(steps.bit_count(), rel=5 * math.sqrt(2 / 40_000))


def test_prefix_sums_stay_on_the_grid():
    source = stream(bytes(32), b"tree")
    tree = TreeNoise(lambda: source.cells(50))
    prefix = np.zeros(50, np.int64)
    for _ in range(20):
        prefix += tree.next()       # of another type it would raise
