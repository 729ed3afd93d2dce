"""Calibration and thresholds: against scikit-learn, against a plain loop, and of models whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

from fedround.errors import ContractError
from validation.reliability import choices, reliability


def drawn(seed: int, rows: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """A model whose chances are what they say."""
    generator = np.random.default_rng(seed)
    chance_N = generator.beta(1, 3, rows)
    return chance_N, (generator.random(rows) < chance_N).astype(np.int64)


def test_the_bins_are_those_of_scikit_learn():
    chance_N, truth_N = drawn(0)
    found = reliability(chance_N, truth_N)
    observed, predicted = calibration_curve(truth_N, chance_N, n_bins=10, strategy="quantile")
    assert [one.predicted for one in found.bins] == pytest.approx(predicted.tolist())
    assert [one.observed.value for one in found.bins] == pytest.approx(observed.tolist())


def test_honest_chances_have_a_small_error_and_doubled_ones_a_large_one():
    errors = [reliability(*drawn(seed)).error for seed in range(20)]
    assert max(errors) < 0.03
    chance_N, truth_N = drawn(1)
    assert reliability(chance_N / 2, truth_N).error == pytest.approx(chance_N.mean() / 2, abs=0.03)
    held = [one.observed.low <= one.predicted <= one.observed.high for seed in range(20) for one in
            reliability(*drawn(seed)).bins]
    assert np.mean(held) > 0.9


@settings(max_examples=40)
@given(st.integers(0, 10 ** 6), st.floats(0.1, 20), st.integers(2, 60))
def test_the_cheapest_threshold_is_that_of_a_plain_loop(seed: int, missed: float, rows: int):
    generator = np.random.default_rng(seed)
    chance_N = generator.integers(0, 8, rows) / 8                      # many of them equal
    truth_N = generator.integers(0, 2, rows)
    truth_N[:2] = 0, 1
    found = choices(chance_N, truth_N, missed)

    def cost(at: float) -> float:
        return float((missed * ((chance_N < at) & (truth_N == 1)) + ((chance_N >= at) & (truth_N == 0))).mean())

    least = min(cost(at) for at in [*chance_N.tolist(), 1.0])
    assert found.best.cost == pytest.approx(least)
    assert found.best.cost == pytest.approx(cost(found.best.threshold))


def test_a_line_is_a_confusion_matrix():
    chance_N, truth_N = drawn(2)
    found = choices(chance_N, truth_N, 4.0)
    one = next(one for one in found.shown if one.threshold == 0.3)
    tn, fp, fn, tp = confusion_matrix(truth_N, chance_N >= 0.3).ravel()
    assert (one.recall, one.false_positives, one.precision) == pytest.approx((tp / (tp + fn), fp / (fp + tn), tp / (tp + fp)))
    assert one.cost == pytest.approx((4 * fn + fp) / len(truth_N))
    assert found.best.threshold == pytest.approx(found.if_calibrated, abs=0.1), "chances are what they say"


def test_what_has_no_answer_is_refused():
    chance_N, truth_N = drawn(3, 20)
    for missed in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ContractError, match="false alarms"):
            choices(chance_N, truth_N, missed)
    with pytest.raises(ContractError, match="both labels"):
        choices(chance_N, np.ones(20, np.int64), 1.0)
    with pytest.raises(ContractError, match="at least 10 rows"):
        reliability(chance_N[:9], truth_N[:9])


def test_the_slope_is_scikit_learns_and_tells_who_is_too_sure():
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(12)
    logit_N = generator.normal(-0.5, 1.5, 4000)
    truth_N = (generator.random(4000) < 1 / (1 + np.exp(-logit_N))).astype(np.int64)
    for sure, low, high in ((1.0, 0.93, 1.07), (2.0, 0.46, 0.54), (0.5, 1.86, 2.14)):
        chance_N = 1 / (1 + np.exp(-sure * logit_N))
        found = reliability(chance_N, truth_N).slope
        fitted = LogisticRegression(C=1e9, tol=1e-8).fit(sure * logit_N[:, None], truth_N)
        assert found == pytest.approx(fitted.coef_[0, 0], rel=1e-3)
        assert low < found < high


def test_where_no_slope_is_the_most_likely_one_none_is_told():
    chance_N = np.linspace(0.05, 0.95, 40)
    assert reliability(chance_N, (chance_N > 0.4).astype(np.int64)).slope is None, "a threshold tells all labels apart"
    assert reliability(np.full(40, 0.3), np.arange(40) % 2).slope is None, "all chances are alike"
    assert reliability(chance_N, np.ones(40, np.int64)).slope is None
    certain = reliability(np.where(np.arange(40) % 3 > 0, 1.0, 0.0), np.arange(40) % 2).slope
    assert certain is not None
    assert abs(certain) < 0.1, "chances of 0 and 1 that mean nothing"
