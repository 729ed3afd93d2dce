"""Distances of noised tables, and the law of noise and chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon

from fedround.drift.law import MOST_VALUES, Noised, compare, distance, holm, interval, matched, rebuilt

SHARES = np.array([0.3, 0.25, 0.2, 0.1, 0.05, 0.05, 0.04, 0.01, 0.0, 0.0])
TABLES = arrays(np.float64, 6, elements=st.floats(-50, 500))


def drawn(generator: np.random.Generator, records: int, noise_std: float, shares: np.ndarray = SHARES) -> Noised:
    return Noised(generator.multinomial(records, shares) + noise_std * generator.standard_normal(len(shares)), noise_std)


@given(TABLES)
def test_a_rebuilt_table_has_whole_numbers_of_at_least_zero_and_the_same_total(count_C: np.ndarray):
    found_C = rebuilt(count_C)
    assert (found_C >= 0).all()
    assert (found_C == np.rint(found_C)).all()
    assert found_C.sum() == pytest.approx(max(count_C.sum(), 1.0), abs=3.1)


def test_a_large_table_is_scaled_down():
    assert rebuilt(np.array([3e9, 1e9])).tolist() == [0.75 * MOST_VALUES, 0.25 * MOST_VALUES]


@given(TABLES, TABLES)
def test_the_distance_is_that_of_scipy_and_symmetric(one_C: np.ndarray, other_C: np.ndarray):
    one_C, other_C = rebuilt(one_C), rebuilt(other_C)
    if one_C.any() and other_C.any():
        assert distance(one_C, other_C) == pytest.approx(jensenshannon(one_C, other_C), abs=1e-7)
        assert distance(one_C, other_C) == distance(other_C, one_C)


@pytest.mark.parametrize(("records", "noise_std"), [(400, 20.0), (4000, 0.0), (20_000, 70.0)])
def test_without_drift_improbable_distances_are_as_rare_as_they_say(records: int, noise_std: float):
    """Of 400 pairs at most 4 and 4 standard errors lie below 1 %."""
    generator = np.random.default_rng(5)
    p = [compare(drawn(generator, records, noise_std), drawn(generator, records, noise_std), generator, 200).p
         for _ in range(400)]
    assert sum(one <= 0.01 for one in p) <= 12
    assert sum(one <= 0.5 for one in p) >= 80, "so conservative that it finds nothing"


def test_a_law_without_the_noise_would_cry_wolf():
    generator = np.random.default_rng(6)
    told = [[drawn(generator, 400, 20.0) for _ in range(2)] for _ in range(50)]
    deaf = [compare(*(Noised(one.count_C, 0.0) for one in pair), generator, 200).p for pair in told]
    assert np.median(deaf) < 0.001


def test_a_drift_is_found_and_its_size_lies_in_the_interval():
    generator, moved = np.random.default_rng(7), SHARES[::-1]
    exact, inside = float(distance(SHARES, moved)), 0
    half = 0.8 * SHARES + 0.2 * moved
    for _ in range(60):
        one, other = drawn(generator, 2000, 10.0), drawn(generator, 2000, 10.0, half)
        found = compare(one, other, generator, 300)
        assert found.p < 1e-4
        low, high = interval(one, other, found.estimate, 1.96, generator, 300)
        inside += low <= float(distance(SHARES, half)) <= high
    assert inside >= 50
    assert found.estimate < exact


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0.01, 0.5))
def test_holm_is_between_bonferroni_and_no_correction(p: list[float], level: float):
    alarms = holm(p, level)
    assert all(alarm for one, alarm in zip(p, alarms, strict=True) if one <= level / max(1, len(p)))
    assert not any(alarm for one, alarm in zip(p, alarms, strict=True) if one > level)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.02, 0.03], 0.05) == [True, False, False, False]      # 0.02 > 0.05 / 3
    assert holm([0.01, 0.04, 0.015, 0.024], 0.05) == [True, True, True, True]


# -- what is true, given the score -------------------------------------------------------------------------------------

SCORED = np.array([0.4, 0.3, 0.2, 0.1])
CHANCES = np.array([0.1, 0.3, 0.6, 0.9])


def scored(generator: np.random.Generator, records: int, noise_std: float, shares: np.ndarray = SCORED,
           chances: np.ndarray = CHANCES) -> Noised:
    table = generator.multinomial(records, np.concatenate([shares * (1 - chances), shares * chances]))
    return Noised(table + noise_std * generator.standard_normal(len(table)), noise_std, of_truth=True)


@given(TABLES, TABLES)
def test_a_matched_table_has_the_others_scores_and_its_own_truth(one_C: np.ndarray, other_C: np.ndarray):
    one_C, other_C = rebuilt(one_C), rebuilt(other_C)
    found_TS, one_TS = matched(one_C, other_C).reshape(2, -1), one_C.reshape(2, -1)
    assert found_TS.sum(axis=0) == pytest.approx(other_C.reshape(2, -1).sum(axis=0))
    there_S = (one_TS.sum(axis=0) > 0) & (found_TS.sum(axis=0) > 0)
    assert (found_TS[1] / np.maximum(found_TS.sum(axis=0), 1e-9))[there_S] == pytest.approx(
        (one_TS[1] / np.maximum(one_TS.sum(axis=0), 1e-9))[there_S])
    assert matched(one_C, one_C) == pytest.approx(one_C)


@pytest.mark.parametrize(("records", "noise_std"), [(400, 10.0), (4000, 0.0), (4000, 20.0)])
def test_other_records_alone_are_no_change_of_what_is_true(records: int, noise_std: float):
    """The scores are turned round, and what is true of each stays: alarms are as rare as they say."""
    generator = np.random.default_rng(8)
    p = [compare(scored(generator, records, noise_std), scored(generator, records, noise_std, SCORED[::-1]), generator, 200).p
         for _ in range(400)]
    assert sum(one <= 0.01 for one in p) <= 12
    assert sum(one <= 0.5 for one in p) >= 60, "so conservative that it finds nothing"


def test_a_change_of_what_is_true_is_found_where_all_scores_lie_as_before():
    generator, moved = np.random.default_rng(9), CHANCES + np.array([0.15, 0.0, -0.15, 0.0])
    for _ in range(20):
        one, other = scored(generator, 4000, 20.0), scored(generator, 4000, 20.0, chances=moved)
        found = compare(one, other, generator, 300)
        assert found.p < 0.05
        low, high = interval(one, other, found.estimate, 3.0, generator, 300)
        assert low <= found.estimate <= high
