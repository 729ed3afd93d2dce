"""The moving average of uploads is a weighted mean whose weights add up to one, and so is its law."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.aggregation.history import History, blend, with_upload
from fedround.aggregation.noise_law import NoiseLaw

betas = st.floats(0, 0.99)
lengths = st.integers(1, 30)


def after(uploads_TB: np.ndarray, laws: list[NoiseLaw | None], beta: float) -> tuple[np.ndarray, History]:
    history, average_B = None, None
    for upload_B, law in zip(uploads_TB, laws, strict=True):
        history = with_upload(history, law, beta)
        average_B = blend(average_B, upload_B, history)
    return average_B, history


@given(betas, lengths)
def test_it_is_the_bias_corrected_mean(beta: float, count: int):
    uploads_TB = np.random.default_rng(count).normal(size=(count, 5)).astype(np.float32)
    average_B, history = after(uploads_TB, [None] * count, beta)
    weight_T = beta ** np.arange(count)[::-1]
    assert np.allclose(average_B, weight_T @ uploads_TB / weight_T.sum(), atol=1e-5)
    assert history.weight == pytest.approx(weight_T.sum())


@given(betas, lengths)
def test_its_law_is_the_mean_of_bounds_and_the_noise_that_is_left(beta: float, count: int):
    generator = np.random.default_rng(count)
    bound_T, variance_T = generator.uniform(0.1, 3, size=(2, count))
    _, history = after(np.zeros((count, 1), np.float32), list(map(NoiseLaw, bound_T, variance_T)), beta)
    share_T = beta ** np.arange(count)[::-1]
    share_T /= share_T.sum()
    assert history.law is not None
    assert history.law.signal_bound == pytest.approx(share_T @ bound_T)
    assert history.law.variance == pytest.approx(share_T ** 2 @ variance_T)


def test_noise_is_averaged_away_as_the_law_says():
    """Uploads of nothing but noise: the variance of the average is what its law declares, not the upload's."""
    noise_TB = np.random.default_rng(0).normal(0, 2, size=(20, 40_000)).astype(np.float32)
    average_B, history = after(noise_TB, [NoiseLaw(0.0, 4.0)] * 20, 0.9)
    assert history.law is not None
    assert average_B.var() == pytest.approx(history.law.variance, rel=0.03)
    assert history.law.variance < 0.6


def test_one_unknown_law_makes_the_averages_law_unknown_for_good():
    law = NoiseLaw(1.0, 1.0)
    assert after(np.zeros((3, 1), np.float32), [law, None, law], 0.5)[1].law is None


@given(st.integers(1, 10))
def test_without_a_memory_the_average_is_the_upload_to_the_bit(count: int):
    uploads_TB = (np.random.default_rng(count).normal(size=(count, 7)) * 10.0 ** np.arange(-30, 40, 10)).astype(np.float32)
    average_B, history = after(uploads_TB, [None] * (count - 1) + [NoiseLaw(1.0, 2.0)], 0.0)
    assert average_B.tobytes() == uploads_TB[-1].tobytes()
    assert history == History(1.0, NoiseLaw(1.0, 2.0))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_poison_stays_visible(poison: float):
    past_B = np.ones(3, np.float32)
    mixed_B = blend(past_B, np.array([0, poison, 0], np.float32), History(2.0, None))
    assert np.isfinite(mixed_B).tolist() == [True, False, True]


@given(st.floats(-2.0**127, 2.0**127, width=32), st.floats(-2.0**127, 2.0**127, width=32), st.floats(1, 1e6))
def test_finite_numbers_stay_finite(past: float, upload: float, weight: float):
    assert np.isfinite(blend(np.full(1, past, np.float32), np.full(1, upload, np.float32), History(weight, None))).all()
