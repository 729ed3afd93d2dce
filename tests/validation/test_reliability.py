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
