"""What an owner is told of their rows: the labels that somebody typed wrong, and the values that lie far out."""

from __future__ import annotations

import numpy as np
import pandas as pd

from validation import quality


def clusters(rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose labels can be told by their features."""
    rng = np.random.default_rng(0)
    label_N = rng.integers(0, classes, rows)
    return (4 * np.eye(classes, 6)[label_N] + rng.normal(size=(rows, 6))).astype(np.float32), label_N


def test_labels_that_were_typed_wrong_are_most_of_those_in_doubt():
    for classes in (2, 3):
        features_NF, truth_N = clusters(600, classes)
        wrong_N = np.zeros(600, np.bool_)
        wrong_N[:30] = True
        typed_N = np.where(wrong_N, (truth_N + 1) % classes, truth_N)
        doubtful_N, recognised = quality._judged(features_NF, typed_N)
        assert 0.9 < recognised < 0.99
        assert doubtful_N[wrong_N].mean() > 0.8
        assert doubtful_N[~wrong_N].mean() < 0.03
        told = quality.labels(features_NF, typed_N, classes)
        assert [one.rows for one in told.labels] == np.bincount(typed_N).tolist()
        assert sum(one.doubtful for one in told.labels) == doubtful_N.sum()


def test_where_there_is_too_little_to_say_nothing_is_said():
    features_NF, label_N = clusters(40, 2)
    assert [one.doubtful for one in quality.labels(features_NF, np.zeros(40, np.int64), 2).labels] == [None, None]
    label_N[:] = 0
    label_N[:4] = 1
    told = quality.labels(features_NF, label_N, 3)
    assert [(one.rows, one.doubtful) for one in told.labels] == [(36, None), (4, None), (0, None)]
    assert told.recognised is None
    assert [one.rows for one in quality.labels(features_NF[:0], label_N[:0], 2).labels] == [0, 0]


def test_wide_rows_and_many_labels_are_looked_at_in_part():
    assert quality.looked_at(np.zeros((100_000, 24), np.float32), 2) == quality.MOST_ROWS
    assert quality.looked_at(np.zeros((5_000, 784), np.float32), 10) == 637
    assert quality.looked_at(np.zeros((300, 24), np.float32), 2) == 300


def test_values_far_out_are_counted_by_column_and_the_worst_comes_first():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.normal(50, 5, 200), "income": rng.normal(1, 0.1, 200), "name": ["x"] * 200,
                          "smokes": rng.random(200) < 0.5, "mostly": [0.0] * 180 + [9.0] * 20})
    frame.loc[:3, "income"], frame.loc[7, "age"], frame.loc[8, "age"] = 99.0, 1e9, np.nan
    found = {one.column: (one.outside, one.rows) for one in quality.outliers([frame.head(90), frame.tail(110)])}
    assert found == {"income": (4, 200), "age": (1, 199)}
    assert list(found) == ["income", "age"]
