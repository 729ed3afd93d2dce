"""The projection of noised counts, against the one shift that a search finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.simplex import onto_simplex


def twin(values: np.ndarray, total: float) -> np.ndarray:
    """All numbers less the same shift, none below 0: the shift that gives the total, found by halving."""
    low, high = values.min() - total - 1, values.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(values - middle, 0).sum() > total else (low, middle)
    return np.maximum(values - high, 0)


@given(seed=st.integers(0, 2 ** 32 - 1), axis=st.sampled_from([-1, -3, 1]), total=st.floats(0, 1000))
def test_along_any_axis_it_is_the_twins(seed: int, axis: int, total: float):
    values = np.random.default_rng(seed).normal(20, 50, (2, 4, 3, 2))
    wanted = np.full([1 if at == axis % 4 else size for at, size in enumerate(values.shape)], total)
    found = onto_simplex(values, wanted, axis)
    assert np.allclose(found, np.apply_along_axis(twin, axis, values, total), atol=1e-6)
    assert np.allclose(found.sum(axis=axis, keepdims=True), wanted, atol=1e-6)


def test_what_is_possible_already_stays():
    counts = np.array([3.0, 0.0, 7.0])
    assert onto_simplex(counts, np.array([10.0]), -1) == pytest.approx(counts)
