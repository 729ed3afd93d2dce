"""Forms of coordinates: values inside the range, and shares that explain them."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedround.aggregation.coordinate import Kernel, Middle, Nearest, Weighed, form_of, shares, shares_of_each
from fedround.aggregation.rules import TrimmedMean, WeightedMedian, WeightedTrimmedMean
from fedround.aggregation.spec import Aggregation
from fedround.errors import ToleranceError

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
ROWS, SHARE = st.integers(1, 70), st.floats(0, 1)
FORMS = st.one_of(st.builds(lambda rows, share: (rows, Middle(int(share * ((rows - 1) // 2)))), ROWS, SHARE),
                  st.builds(lambda rows, share: (rows, Nearest(1 + int(share * (rows - 1)))), ROWS, SHARE),
                  st.builds(lambda whole, share: (len(whole), Weighed(tuple(whole), int(share * (sum(whole) - 1) / 2))),
                            st.lists(st.integers(1, 2**40), min_size=1, max_size=70), SHARE))


def values(form, y_KC):
    return Kernel(form, *y_KC.shape)(y_KC.copy()).copy()


def naive(form, column):
    column = sorted(map(float, column))
    middle = (column[(len(column) - 1) // 2] + column[len(column) // 2]) / 2
    if isinstance(form, Nearest):
        return np.mean(sorted(column, key=lambda value: (abs(value - middle), value))[:form.keep])
    return np.mean(column[form.drop:len(column) - form.drop])


@settings(max_examples=80)
@given(which=FORMS, seed=st.integers(0, 2**32 - 1))
def test_values_are_those_of_two_loops(which, seed):
    rows, form = which
    assume(not isinstance(form, Weighed))           # their two loops: tests/parity
    y_KC = np.random.default_rng(seed).integers(-9, 10, (rows, 25)).astype(np.float32)     # ties, on both sides of the median
    assert np.allclose(values(form, y_KC), [naive(form, column) for column in y_KC.T], rtol=1e-14, atol=1e-14)


@settings(max_examples=80)
@given(which=FORMS, data=st.data())
def test_a_value_lies_between_the_values_it_is_made_of(which, data):
    """To the last bit, also for numbers of very different size."""
    rows, form = which
    y_KC = data.draw(arrays(np.float32, (rows, 2), elements=FINITE, fill=FINITE))
    found_C = values(form, y_KC).astype(np.float32)
    assert (y_KC.min(axis=0) <= found_C).all()
    assert (found_C <= y_KC.max(axis=0)).all()


@settings(max_examples=80)
@given(which=FORMS, seed=st.integers(0, 2**32 - 1))
def test_shares_are_the_mean_weights_of_the_rows(which, seed):
    """On one coordinate they make its value; they add up to one."""
    rows, form = which
    y_KS = np.random.default_rng(seed).normal(size=(rows, 30)).astype(np.float32)
    each = np.array([shares(form, y_KS[:, s:s + 1]) for s in range(30)]).T
    assert np.allclose((each * y_KS).sum(axis=0), values(form, y_KS), rtol=1e-6, atol=1e-7)
    assert np.allclose(shares(form, y_KS), each.mean(axis=1))
    assert shares(form, y_KS).sum() == pytest.approx(1)
    assert np.allclose(shares_of_each(form, y_KS), each)


# -- weights -----------------------------------------------------------------------------------------------------------

WEIGHTS = st.lists(st.floats(1.0, 1e4), min_size=3, max_size=20)


@settings(max_examples=60)
@given(weights=WEIGHTS, f=st.integers(0, 3), seed=st.integers(0, 2**32 - 1), lie=st.sampled_from([-1e30, 1e30]))
def test_any_f_liars_that_weigh_less_than_half_leave_the_result_among_the_honest(weights, f, seed, lie):
    generator, share_K = np.random.default_rng(seed), np.array(weights) / sum(weights)
    f = min(f, len(weights) - 1)
    try:
        forms = [form_of(WeightedTrimmedMean(f=f), share_K)]
    except ToleranceError:
        assert np.sort(share_K)[len(weights) - f:].sum() >= 0.5 - 1e-9
        return
    liars = generator.choice(len(weights), f, replace=False)
    if share_K[liars].sum() < 0.5 - 1e-9:
        forms.append(form_of(WeightedMedian(), share_K))
    y_KC = generator.normal(size=(len(weights), 5)).astype(np.float32)
    y_KC[liars] = lie
    honest = np.delete(y_KC, liars, axis=0)
    for form in forms:
        found_C = values(form, y_KC).astype(np.float32)
        assert (honest.min(axis=0) <= found_C).all()
        assert (found_C <= honest.max(axis=0)).all()
        assert shares(form, y_KC)[liars].sum() == pytest.approx(0)


@pytest.mark.parametrize("rows", [3, 4, 9, 12])
def test_with_equal_weights_they_are_what_they_are_without(rows):
    y_KC, share_K = np.random.default_rng(rows).normal(size=(rows, 40)).astype(np.float32), np.full(rows, 1 / rows)
    assert np.allclose(values(form_of(WeightedMedian(), share_K), y_KC), np.median(y_KC, axis=0))
    f = (rows - 1) // 2
    assert np.allclose(values(form_of(WeightedTrimmedMean(f=f), share_K), y_KC),
                       values(form_of(TrimmedMean(f=f), share_K), y_KC))


def test_whoever_may_lie_weighs_less_than_half():
    with pytest.raises(ToleranceError, match=r"the 1 heaviest of 4 sites have 50% of the weight"):
        form_of(WeightedTrimmedMean(f=1), np.array([3.0, 1.0, 1.0, 1.0]) / 6)
    form_of(WeightedTrimmedMean(f=1), np.array([2.9, 1.0, 1.0, 1.0]) / 5.9)
    how = Aggregation(rule=WeightedTrimmedMean(f=1))
    how.check_weights([5, 2, 2, 2, 2], quorum=5)
    with pytest.raises(ToleranceError, match="56% of the weight"):      # of a quorum of three, with the lightest two
        how.check_weights([5, 2, 2, 2, 2], quorum=3)
