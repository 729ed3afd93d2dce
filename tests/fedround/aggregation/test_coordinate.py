"""Forms of coordinates: values inside the range, and shares that explain them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedround.aggregation.coordinate import Kernel, Middle, Nearest, shares

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
ROWS, SHARE = st.integers(1, 70), st.floats(0, 1)
FORMS = st.one_of(st.builds(lambda rows, share: (rows, Middle(int(share * ((rows - 1) // 2)))), ROWS, SHARE),
                  st.builds(lambda rows, share: (rows, Nearest(1 + int(share * (rows - 1)))), ROWS, SHARE))


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
