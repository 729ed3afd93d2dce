"""A campaign ends where its score has stopped growing, as far as the noise lets anybody see."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.rounds.ending import ToldOfModel, has_settled

values = st.floats(-5, 5)
some = st.lists(st.builds(ToldOfModel, values, st.floats(0, 2)), max_size=20)


@given(some, st.integers(1, 6), values)
def test_only_the_last_rounds_count_and_where_zero_lies_does_not(told, patience, moved):
    assert has_settled(told, patience) == has_settled(told[-2 * patience:], patience)
    if len(told) < 2 * patience:
        assert not has_settled(told, patience)
    gap = sum(one.value for one in told[-patience:]) - sum(one.value for one in told[-2 * patience:-patience])
    if abs(gap - np.sqrt(sum(one.margin ** 2 for one in told[-2 * patience:]))) > 1e-9:
        shifted = [ToldOfModel(one.value + moved, one.margin) for one in told]
        assert has_settled(shifted, patience) == has_settled(told, patience)


def test_long_ago_neither_hides_a_gain_nor_makes_one():
    assert not has_settled([ToldOfModel(value, 0.0) for value in (9, 9, 9, 1, 1, 2, 2)], 2)
    assert has_settled([ToldOfModel(value, 0.0) for value in (0, 0, 0, 2, 2, 2, 2)], 2)
    assert has_settled([ToldOfModel(value, 0.0) for value in (0, 0, 9, 2, 2, 1, 1)], 2)


@given(st.integers(1, 6), st.floats(0.01, 1))
def test_without_noise_every_gain_goes_on_and_none_ends_it(patience, gain):
    grows = [ToldOfModel(gain * number, 0.0) for number in range(2 * patience)]
    assert not has_settled(grows, patience)
    assert has_settled(grows[::-1], patience)
    assert has_settled([ToldOfModel(0.7, 0.0)] * 2 * patience, patience)


@pytest.mark.parametrize("patience", [1, 3, 8])
def test_a_score_that_does_not_grow_is_seen_so_in_97_or_98_of_100_campaigns(patience):
    """One-sided: in half of the five of a hundred repeats that noise moves farther, it moves up."""
    generator, std = np.random.default_rng(patience), 0.01
    drawn = 0.78 + std * generator.standard_normal((4000, 2 * patience))
    ended = np.mean([has_settled([ToldOfModel(value, 1.96 * std) for value in row], patience) for row in drawn])
    assert ended == pytest.approx(0.975, abs=0.012)


def test_a_larger_patience_sees_a_smaller_gain():
    told = [ToldOfModel(0.7 + 0.02 * (number >= 10), 0.03) for number in range(20)]
    assert has_settled(told[8:12], 2)
    assert not has_settled(told, 10)
