"""Laws of the estimated distances: lengths are exact, angles sampled, and nobody can choose the sample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedround.aggregation.engine import aggregate, estimates_distances
from fedround.aggregation.estimate import SAMPLE, windows
from fedround.aggregation.rows import ArrayNumbers, Coordinates, Excerpt, Numbers, Row
from fedround.aggregation.rules import CoordinateMedian, Krum, TrimmedMean, WeightedMean
from fedround.aggregation.spec import Aggregation, NearestNeighbourMixing
from tests.cohorts import cohort, rows_of

MEAN, TRIMMED = Aggregation(rule=WeightedMean()), Aggregation(rule=TrimmedMean(f=1))
LARGE = 3 * SAMPLE + 77
WINDOW = 4096
SEEDS = st.binary(max_size=40)


def exact(x_ND: np.ndarray) -> np.ndarray:
    return np.array([[np.linalg.norm(one.astype(float) - other) for other in x_ND] for one in x_ND])


@given(coordinates=st.integers(SAMPLE + 1, 200 * SAMPLE), seed=SEEDS)
def test_each_part_of_the_model_has_its_window(coordinates: int, seed: bytes):
    starts = windows(coordinates, seed)
    assert len(starts) * WINDOW == SAMPLE
    for part, start in enumerate(starts):
        assert part * coordinates // len(starts) <= start
        assert start + WINDOW <= (part + 1) * coordinates // len(starts)


def test_windows_lie_anywhere_in_their_part():
    """Over many seeds the first window begins in the first, and in the last, tenth of where it may."""
    first = [windows(100 * SAMPLE, bytes([seed]))[0] for seed in range(100)]
    assert min(first) < 10 * WINDOW
    assert max(first) > 89 * WINDOW


@settings(max_examples=3)
@given(seed=st.integers(0, 2**32 - 1), how=st.sampled_from([MEAN, TRIMMED, Aggregation(rule=CoordinateMedian())]))
def test_where_updates_differ_by_noise_the_estimate_is_right_to_a_percent(seed: int, how: Aggregation):
    x_ND = cohort(seed, 5, LARGE) * np.array([[1], [1], [2], [1], [5]], dtype=np.float32)
    found = aggregate(rows_of(x_ND), how, LARGE).distances_NN
    assert np.allclose(found, exact(x_ND), rtol=0.01)
    assert not np.array_equal(found, exact(x_ND))
    assert np.array_equal(found, found.T)
    assert not found.diagonal().any()


@pytest.mark.parametrize("where", [slice(0, 200), slice(LARGE // 2, LARGE // 2 + 1), slice(LARGE - 100, LARGE)], ids=str)
def test_an_update_that_is_odd_in_a_few_coordinates_looks_odd(where: slice):
    """Whether the sample holds them or not: its length from the result is exact."""
    x_ND = cohort(0, 5, LARGE)
    x_ND[3, where] += 3e4 / np.sqrt(where.stop - where.start)
    found = aggregate(rows_of(x_ND), TRIMMED, LARGE)
    lengths_N = np.array([standing.distance for standing in found.standings.values()])
    others = [0, 1, 2, 4]
    assert found.distances_NN[3, others] == pytest.approx(exact(x_ND)[3, others], rel=0.05)
    assert (found.distances_NN >= np.abs(np.subtract.outer(lengths_N, lengths_N)) * (1 - 1e-9)).all()
    assert (found.distances_NN <= np.add.outer(lengths_N, lengths_N) * (1 + 1e-9)).all()


def test_copies_of_an_update_lie_together():
    x_ND = cohort(1, 5, LARGE)
    x_ND[4] = x_ND[0]
    found = aggregate(rows_of(x_ND), TRIMMED, LARGE).distances_NN
    assert found[0, 4] <= 1e-6 * found[0, 1]


def test_equal_updates_have_no_distance_and_no_warning():
    found = aggregate(rows_of(np.tile(cohort(1, 1, LARGE), (4, 1))), MEAN, LARGE)
    assert found.distances_NN.max() <= 1e-6 * found.standings["site-00"].norm


@pytest.mark.parametrize(("how", "size", "estimated"), [
    (MEAN, SAMPLE, False), (MEAN, SAMPLE + 1, True), (TRIMMED, SAMPLE + 1, True), (Aggregation(rule=Krum(f=1)), LARGE, False),
    (NearestNeighbourMixing(f=1) >> TrimmedMean(f=1), LARGE, False)], ids=str)
def test_distances_are_exact_where_a_rule_needs_them_and_in_small_models(how: Aggregation, size: int, estimated: bool):
    x_ND = cohort(2, 5, size)
    assert estimates_distances(how, size) is estimated
    assert np.allclose(aggregate(rows_of(x_ND), how, size).distances_NN, exact(x_ND), rtol=1e-9, atol=1e-6) is not estimated


class Watched:
    """Numbers that remember where they were read."""

    def __init__(self, array_D: Coordinates) -> None:
        self.numbers, self.starts = ArrayNumbers(array_D), []

    def read(self, start: int, out_B: Coordinates) -> None:
        self.starts.append((start, len(out_B)))
        self.numbers.read(start, out_B)


def windows_read(x_ND: np.ndarray, seed: bytes = b"a plan", order: slice = slice(None)) -> list[int]:
    """Where the last reads of the first site's update began: those of the sample."""
    watched = [Watched(x_D) for x_D in x_ND]
    rows = [Row(f"site-{n}", 1.0, numbers) for n, numbers in enumerate(watched)]
    aggregate(rows[order], MEAN, x_ND.shape[1], seed=seed)
    return [start for start, _ in watched[0].starts[-SAMPLE // WINDOW:]]


def test_the_sample_follows_from_the_plan_and_from_everybodys_update():
    """So whoever does not know all other updates cannot know where nobody will look."""
    x_ND = cohort(0, 4, LARGE)
    starts = windows_read(x_ND)
    assert len(set(starts)) == SAMPLE // WINDOW
    assert windows_read(x_ND, order=slice(None, None, -1)) == starts
    assert windows_read(x_ND, seed=b"another") != starts
    x_ND[2] *= 2
    assert windows_read(x_ND) != starts


@given(data=st.data())
def test_an_excerpt_is_its_windows_one_after_the_other(data: st.DataObject):
    x_D = np.arange(100, dtype=np.float32)
    width = data.draw(st.integers(1, 9))
    starts = tuple(data.draw(st.lists(st.integers(0, 100 - width), min_size=1, max_size=6)))
    whole = np.concatenate([x_D[start:start + width] for start in starts])
    low = data.draw(st.integers(0, len(whole) - 1))
    out = np.empty(data.draw(st.integers(0, len(whole) - low)), np.float32)
    excerpt: Numbers = Excerpt(ArrayNumbers(x_D), starts, width)
    excerpt.read(low, out)
    assert np.array_equal(out, whole[low:low + len(out)])
