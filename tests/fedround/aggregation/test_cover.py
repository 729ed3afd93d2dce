"""Covers and matchings of small graphs against trying everything."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedround.aggregation.cover import cover, disjoint_conflicts, in_every_cover, is_coverable


@st.composite
def graphs(draw):
    rows = draw(st.integers(1, 8))
    pairs = list(itertools.combinations(range(rows), 2))
    edges = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    conflicts_NN = np.zeros((rows, rows), dtype=bool)
    for one, other in edges:
        conflicts_NN[one, other] = conflicts_NN[other, one] = True
    return conflicts_NN


def all_covers(conflicts_NN, size):
    rows = range(len(conflicts_NN))
    return [set(out) for out in itertools.combinations(rows, size)
            if not any(conflicts_NN[a, b] for a, b in itertools.combinations(set(rows) - set(out), 2))]


@settings(max_examples=300)
@given(graphs(), st.integers(0, 8), st.randoms(use_true_random=False))
def test_covers_are_those_found_by_trying_all(conflicts_NN, size, random):
    covers = all_covers(conflicts_NN, size)
    smaller = [out for fewer in range(min(size, len(conflicts_NN)) + 1) for out in all_covers(conflicts_NN, fewer)]
    assert is_coverable(conflicts_NN, size) == bool(smaller)
    order = list(range(len(conflicts_NN)))
    random.shuffle(order)
    first = max(covers, key=lambda out: [row in out for row in order], default=None)
    assert cover(conflicts_NN, size, order) == (None if first is None else sorted(first))
    if smaller:
        assert in_every_cover(conflicts_NN, size) == sorted(set.intersection(*smaller))


@settings(max_examples=100)
@given(graphs())
def test_disjoint_conflicts_leave_none_beside_them_and_need_as_many_liars(conflicts_NN):
    generator = np.random.default_rng(0)
    strength_NN = np.triu(generator.uniform(1, 2, conflicts_NN.shape), 1)
    strength_NN = (strength_NN + strength_NN.T) * conflicts_NN
    pairs = disjoint_conflicts(strength_NN)
    gone = [row for pair in pairs for row in pair]
    assert len(gone) == len(set(gone))
    assert all(conflicts_NN[pair] for pair in pairs)
    assert not np.delete(np.delete(conflicts_NN, gone, 0), gone, 1).any()
    assert not is_coverable(conflicts_NN, len(pairs) - 1)
    strengths = [strength_NN[pair] for pair in pairs]
    assert strengths == sorted(strengths, reverse=True)


def test_a_hundred_rows_with_many_liars_take_no_time():
    """Thirty rows in conflict with one other each: 2^30 covers, and no search among them."""
    conflicts_NN = np.zeros((100, 100), dtype=bool)
    for row in range(30):
        conflicts_NN[row, 99 - row] = conflicts_NN[99 - row, row] = True
    assert is_coverable(conflicts_NN, 30)
    assert not is_coverable(conflicts_NN, 29)
    assert cover(conflicts_NN, 30, range(100)) == list(range(30))
    assert in_every_cover(conflicts_NN, 30) == []
