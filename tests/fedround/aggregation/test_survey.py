"""Laws of the screening, and of the reference; and what pass 1 measures."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedround.aggregation.rows import ArrayNumbers
from fedround.aggregation.survey import LINK, Survey, guess_reference, reference, screen
from fedround.aggregation.sweep import sweep
from fedround.aggregation.verdict import Verdict

NORMS = st.one_of(st.sampled_from([0.0, math.nan, math.inf, 1e-34, 1e30]), st.floats(-12, 12).map(lambda x: 10.0 ** x))
COHORTS = st.lists(NORMS, min_size=1, max_size=14)


@settings(max_examples=500)
@given(norms=COHORTS)
def test_without_a_row_that_was_left_out_everybody_else_is_judged_the_same(norms):
    verdicts = screen(np.array(norms))
    for n, verdict in enumerate(verdicts):
        if verdict is not Verdict.USED:
            assert screen(np.array(norms[:n] + norms[n + 1:])) == verdicts[:n] + verdicts[n + 1:]


@settings(max_examples=300)
@given(honest=st.lists(st.floats(0.1, 90), min_size=1, max_size=9), data=st.data())
def test_an_honest_majority_of_like_norms_is_never_left_out(honest, data):
    liars = data.draw(st.lists(NORMS, max_size=len(honest) - 1))
    assert screen(np.array(honest + liars))[:len(honest)] == [Verdict.USED] * len(honest)


@given(norms=COHORTS, scale=st.sampled_from([0.5, 8.0]))
def test_units_do_not_matter(norms, scale):
    inside = [norm for norm in norms if not 0 < norm < 1e-20]        # the bounds on norms have units
    assert screen(np.array(inside) * scale) == screen(np.array(inside))


@pytest.mark.parametrize(("norms", "left_out"), [
    ([1.0], []), ([0.0, 0.0, 0.0], []), ([1.0, 1e9], []),                   # nobody can tell
    ([1.0, 1.0, 1.01 * LINK], [2]), ([1.0, 1.0, 0.99 * LINK], []), ([1.0, 1.0, 0.99 / LINK], [2]),
    ([0.0, 0.0, 0.0, 1.0], []),                                             # zeros say nothing of the scale
    ([0.0, 1.0, 1.0, 1e5], [3]), ([1e30], [0]), ([1e-34, 1.0], [0]), ([math.nan, math.inf], [0, 1]),
])
def test_who_is_left_out(norms, left_out):
    assert [n for n, verdict in enumerate(screen(np.array(norms))) if verdict is not Verdict.USED] == left_out


def test_the_reference_has_the_median_norm_of_those_that_are_finite():
    assert guess_reference(np.array([math.nan, 5.0, 1.0, 3.0, math.inf])) == 3
    assert guess_reference(np.array([math.nan])) == 0


def test_a_guess_is_kept_only_if_its_norm_is_near_the_median():
    norm_N = np.array([1.0, 1.5, 2.0, 500.0])
    assert reference(norm_N, np.array([1.0, 2.0, 3.0, 4.0])) == 1
    assert reference(norm_N, np.array([1.0, 4.0, 3.0, 2.0])) == 1           # the guess is row 3, and far too long


@pytest.mark.parametrize("at", range(5))
def test_the_survey_is_the_gram_matrix_about_its_reference(at):
    """Updates, origin, the coordinator's own, in this order; the reference itself is zero."""
    x_MD = np.random.default_rng(at).normal(size=(7, 300)).astype(np.float32)
    work = Survey(7, 5, at)
    found = work.found(sweep([ArrayNumbers(x_D) for x_D in x_MD], work, 0, 300, memory_budget_bytes=1).slabs)
    points_PD = np.insert(x_MD.astype(float), 5, 0, axis=0)
    points_PD -= points_PD[at]
    assert np.allclose(found.gram_PP, points_PD @ points_PD.T, rtol=1e-12, atol=1e-10)
    assert not found.gram_PP[at].any()
    assert np.allclose(found.square_P, np.square(x_MD, dtype=float).sum(axis=1), rtol=1e-13)


def test_rows_that_lie_close_together_far_away_keep_their_distances():
    """Weights instead of changes: a common offset a thousand times the spread. float32 products would be all rounding."""
    x_ND = (3 + 1e-3 * np.random.default_rng(0).normal(size=(6, 5000))).astype(np.float32)
    work = Survey(6, 6, 2)
    swept = sweep([ArrayNumbers(x_D) for x_D in x_ND], work, 0, 5000, memory_budget_bytes=1 << 20)
    gram = work.found(swept.slabs).gram_PP[:6, :6]
    found = gram.diagonal()[:, None] + gram.diagonal() - 2 * gram
    exact = np.square(x_ND[:, None].astype(float) - x_ND).sum(axis=2)
    assert np.allclose(found, exact, rtol=1e-10, atol=0)
