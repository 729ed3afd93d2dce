"""A doubt begins just beyond its bound, and who follows its advice has none."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedround.privacy.sense import MIN_BATCH, MIN_NOISE_MULTIPLIER, doubts, largest_delta_dp
from fedround.privacy.spec import DpFtrl, DpSgd, GaussianUpdate, NoMechanism

JUST = 1 + 1e-9
PLAIN = DpSgd(noise_multiplier=MIN_NOISE_MULTIPLIER, clip_norm=1.0, sampling_rate=0.1, steps=3)
TREE = DpFtrl(noise_multiplier=1.0, clip_norm=1.0, batch_size=MIN_BATCH, steps=3)


@given(st.integers(2, 10 ** 9))
@example(600)           # 0.1/600 to two digits is more than it
@example(49)
def test_the_largest_delta_of_so_many_rows_has_no_doubt_and_more_has_one_with_advice_that_helps(rows: int):
    assert list(doubts(largest_delta_dp(rows), rows, None, None)) == []
    (told,) = doubts(largest_delta_dp(rows) * JUST, rows, None, None)
    advised = re.search(r"ask for at most (\S+)$", told)
    assert advised is not None
    assert list(doubts(float(advised[1]), rows, None, None)) == []


@given(st.floats(1e-3 * JUST, 0.09))
@example(0.0015)        # of 66.7 rows 67 are too many
def test_where_the_rows_are_not_known_a_doubt_names_so_many_that_none_would_be_left(delta_dp: float):
    assert list(doubts(1e-3, None, None, None)) == []
    (told,) = doubts(delta_dp, None, None, None)
    named = re.search(r"more than (\d+) rows", told)
    assert named is not None
    rows = int(named[1])
    assert list(doubts(delta_dp, rows, None, None)) == []
    assert len(list(doubts(delta_dp, rows + 1, None, None))) == 1


@pytest.mark.parametrize(("enough", "too_little", "says"), [
    ((PLAIN, MIN_BATCH), (PLAIN.model_copy(update={"noise_multiplier": MIN_NOISE_MULTIPLIER / JUST}), MIN_BATCH), "noise"),
    ((PLAIN, MIN_BATCH), (PLAIN, MIN_BATCH - 1), f"batches of {MIN_BATCH - 1} rows"),
    ((None, MIN_BATCH), (None, MIN_BATCH - 1), f"batches of {MIN_BATCH - 1} rows"),
    ((None, None), (NoMechanism(), None), "noise multiplier of one release is 0.000"),
    ((TREE, 1), (TREE.model_copy(update={"batch_size": MIN_BATCH - 1}), 99), f"batches of {MIN_BATCH - 1} rows"),
], ids=["noise", "drawn batches", "a batch of unknown noise", "no noise", "fixed batches"])
def test_noise_and_batches_have_a_least_that_is_enough(enough: tuple, too_little: tuple, says: str):
    assert list(doubts(1e-5, 100, *enough)) == []
    (told,) = doubts(1e-5, 100, *too_little)
    assert says in told


def test_a_whole_update_is_about_all_rows_whatever_its_batches():
    assert list(doubts(1e-5, 100, GaussianUpdate(noise_multiplier=1.0, clip_norm=1.0), 1)) == []
