"""Comparator networks do what sorting does, with fewer comparators."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedround.aggregation.networks import Comparator, run, selection_network, sorting_network


def through(network, x_KC):
    """Where each row's values are afterwards, as one array."""
    rows = list(x_KC.copy())
    run(network, rows, np.empty_like(rows[0]))
    return np.array(rows)


@pytest.mark.parametrize("rows", range(1, 13))
def test_the_network_sorts_every_pattern_of_zeros_and_ones(rows):
    """Then it sorts everything (Knuth's zero-one principle)."""
    patterns_KC = np.array(list(itertools.product([0, 1], repeat=rows)), dtype=np.float32).T.copy()
    network = [Comparator(low, high, True, True) for low, high in sorting_network(rows)]
    assert np.array_equal(through(network, patterns_KC), np.sort(patterns_KC, axis=0))


@pytest.mark.parametrize("ordered", [True, False])
@settings(max_examples=60)
@given(rows=st.integers(1, 64), data=st.data())
def test_a_pruned_network_brings_the_same_values_to_the_wanted_places(ordered, rows, data):
    low = data.draw(st.integers(0, rows - 1))
    high = data.draw(st.integers(low + 1, rows))
    x_KC = np.random.default_rng(rows).integers(0, 20, (rows, 200)).astype(np.float32)     # ties as well
    wanted = through(selection_network(rows, low, high, ordered=ordered), x_KC)[low:high]
    expected = np.sort(x_KC, axis=0)[low:high]
    assert np.array_equal(wanted if ordered else np.sort(wanted, axis=0), expected)


@pytest.mark.parametrize(("rows", "drop", "at_most"), [(12, 5, 34), (12, 2, 37), (50, 24, 330), (50, 8, 337)])
def test_pruning_is_worth_it(rows, drop, at_most):
    """As many comparators as the research note counted, of 42 and 403 that sort."""
    kept = selection_network(rows, drop, rows - drop, ordered=False)
    assert len(kept) <= at_most < len(sorting_network(rows))
