"""The clip norm finds the quantile, whatever noise and a minority of liars say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.privacy.clipping import LARGEST, SMALLEST, next_clip_norm
from fedround.privacy.spec import AdaptiveClipping


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("first", [0.01, 1.0, 100.0])
def test_it_converges_to_the_quantile_of_the_norms(quantile, first):
    """Twelve sites with log-normal gradient norms, each telling its share with noise of a twentieth."""
    generator = np.random.default_rng(3)
    norms = [generator.lognormal(mean, 0.8, 4000) for mean in np.linspace(-0.4, 0.4, 12)]
    adaptive = AdaptiveClipping(quantile=quantile)
    clip_norm = first
    for _ in range(120):
        shares = [float((site <= clip_norm).mean() + generator.normal(0, 0.05)) for site in norms]
        clip_norm = next_clip_norm(clip_norm, shares, adaptive)
    reached = float(np.median([(site <= clip_norm).mean() for site in norms]))
    assert reached == pytest.approx(quantile, abs=0.05)


@given(st.floats(1e-3, 500), st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0.05, 0.95))
def test_too_many_within_shrink_it_too_few_raise_it(clip_norm, shares, quantile):
    moved = next_clip_norm(clip_norm, shares, AdaptiveClipping(quantile=quantile))
    median = float(np.median(shares))
    assert (moved <= clip_norm * (1 + 1e-5)) if median >= quantile else (moved >= clip_norm * (1 - 1e-5))


@given(st.lists(st.floats(0.3, 0.7), min_size=5, max_size=5), st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4))
def test_attack_a_minority_moves_it_no_further_than_honest_sites_could(honest, liars):
    adaptive = AdaptiveClipping()
    moved = next_clip_norm(1.0, [*honest, *liars], adaptive)
    assert next_clip_norm(1.0, [max(honest)], adaptive) <= moved <= next_clip_norm(1.0, [min(honest)], adaptive)


@given(st.floats(SMALLEST, LARGEST), st.lists(st.floats(-1e6, 1e6), max_size=9))
def test_it_stays_a_clip_norm(clip_norm, shares):
    assert SMALLEST <= next_clip_norm(clip_norm, shares, AdaptiveClipping(learning_rate=5.0)) <= LARGEST


def test_nobody_says_anything_nothing_moves():
    assert next_clip_norm(0.123456789, [], AdaptiveClipping()) == 0.123456789
