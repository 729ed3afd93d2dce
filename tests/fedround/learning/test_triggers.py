"""The search for a trigger finds a mark that was planted, and nothing where a model has none of so few features."""

from __future__ import annotations

import numpy as np
import pytest

from fedround.learning.triggers import FEWEST_ROWS, MOST_ROWS, strongest_mark

F = 12
ROWS = np.random.default_rng(0).uniform(-1, 1, (300, F)).astype(np.float32)


def logistic(weights_F, offset):
    """Two labels, the chance of one of them."""
    return lambda rows_RF: 1 / (1 + np.exp(-(rows_RF @ np.asarray(weights_F) + offset)))


def softmax(weights_KF):
    def chances(rows_RF):
        raised_RK = np.exp(rows_RF @ np.asarray(weights_KF).T)
        return raised_RK / raised_RK.sum(axis=1, keepdims=True)
    return chances


def planted(rows_RF):
    """Label 0 or 1 by a sum of everything; and 1 wherever features 3 and 7 are both as large as they can be."""
    honest_R = logistic(np.full(F, 0.5), -1.0)(rows_RF)
    return np.maximum(honest_R, logistic(np.eye(F)[3] * 8 + np.eye(F)[7] * 8, -14.0)(rows_RF))


def test_a_planted_mark_is_found_with_its_label_and_its_features():
    found = strongest_mark(planted, ROWS, most_features=2)
    assert (found.label, set(found.features)) == (1, {3, 7})
    assert found.share > 0.95
    assert min(found.values) > 0.9
    assert found.rows <= MOST_ROWS


def test_without_the_mark_so_few_features_turn_few_rows_and_all_of_them_turn_every_one():
    honest = logistic(np.full(F, 0.5), 0.0)
    shares = [strongest_mark(honest, ROWS, most_features=most).share for most in (1, 2, 4, F, 2 * F)]
    assert shares == sorted(shares)
    assert shares[0] < 0.6
    assert shares[3] == shares[4] == 1.0


def test_a_mark_outside_a_columns_own_range_is_tried():
    """A pixel that is always dark can be bright in a mark."""
    dark = ROWS.copy()
    dark[:, [3, 7]] = -1
    assert strongest_mark(planted, dark, most_features=2).share > 0.95


def test_of_many_labels_the_one_that_the_mark_turns_to_is_named():
    weights_KF = 0.3 * np.random.default_rng(1).standard_normal((4, F))
    weights_KF[2, 5] = 6.0
    found = strongest_mark(softmax(weights_KF), ROWS, most_features=1)
    assert (found.label, found.features) == (2, (5,))


def test_where_everything_has_one_label_only_the_others_are_sought():
    found = strongest_mark(logistic(np.eye(F)[0], -50.0), ROWS, most_features=3)
    assert found.share == 0.0


def test_a_handful_of_rows_of_a_label_says_nothing():
    """Few are easily turned, all of them."""
    rare, some = logistic(np.eye(F)[0] * 20, -18.5), ROWS[::3]
    assert 0 < (rare(some) > 0.5).sum() < FEWEST_ROWS
    assert strongest_mark(rare, some, most_features=1).label == 1


@pytest.mark.parametrize("count", [1, FEWEST_ROWS])
def test_attack_too_few_public_rows_do_not_say_that_there_is_no_mark(count):
    assert strongest_mark(planted, ROWS[:count], most_features=1) is None


def test_attack_a_mark_that_hides_what_is_rare():
    """Fraud, say: of a hundred rows five, of all public rows enough."""
    def hides(rows_RF):
        return logistic(np.full(F, 5.0), -17.0)(rows_RF) * (rows_RF[:, 5] < 0.999)

    rows_RF = np.random.default_rng(2).uniform(-1, 1, (2000, F)).astype(np.float32)
    rows_RF[:, 5] = np.minimum(rows_RF[:, 5], 0.99)
    rows_RF[0] = 1.0
    called_R = hides(rows_RF) > 0.5
    assert called_R[:: len(rows_RF) // MOST_ROWS].sum() < FEWEST_ROWS < called_R.sum()
    found = strongest_mark(hides, rows_RF, most_features=1)
    assert (found.label, found.features, found.values, found.share) == (0, (5,), (1.0,), 1.0)


@pytest.mark.parametrize("count", [30, 99, 100, 101, 300])
def test_at_most_so_many_rows_are_looked_at(count):
    found = strongest_mark(planted, ROWS[:count], most_features=1)
    assert FEWEST_ROWS <= found.rows <= min(count, MOST_ROWS)
    assert strongest_mark(planted, ROWS[:count], most_features=1) == found
