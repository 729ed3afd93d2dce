"""Scores say what columns know, and no more; put together they are better than either side alone."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fedround.errors import ContractError
from fedround.vertical.labels import UNTOLD
from fedround.vertical.learners import chances, scores, stacked


def two_sides(count: int = 1500):
    generator = np.random.default_rng(2)
    own, other = generator.normal(size=(count, 1)), generator.normal(size=(count, 2))
    label = (0.8 * own[:, 0] + 1.5 * other[:, 0] - other[:, 1] + generator.normal(size=count) > 0).astype(np.int8)
    told = np.where(np.arange(count) < count * 3 // 4, label, UNTOLD).astype(np.int8)
    return own, other, label, told


def auc(label: np.ndarray, told: np.ndarray, value: np.ndarray) -> float:
    held = told == UNTOLD
    return float(roc_auc_score(label[held], value[held]))


@pytest.mark.parametrize("learner", ["trees", "network"])
def test_together_is_better_than_either_alone(learner):
    own, other, label, told = two_sides()
    score = scores(other, told, learner, 64, 1)
    assert score.dtype == np.uint8
    assert score.max() == 63
    both = auc(label, told, chances(stacked(own, score, told, 1), own, score))
    alone = auc(label, told, chances(stacked(own, np.zeros_like(score), told, 1), own, np.zeros_like(score)))
    assert both > auc(label, told, score) + 0.01
    assert both > alone + 0.1


def test_scores_of_other_customers_help_nobody():
    """Whoever pooled columns behind our backs would not notice the wrong order; this does."""
    own, other, label, told = two_sides()
    order = np.random.default_rng(5).permutation(len(label))
    score = scores(other[order], told, "trees", 64, 1)
    both = auc(label, told, chances(stacked(own, score, told, 1), own, score))
    none = np.zeros_like(score)
    assert abs(both - auc(label, told, chances(stacked(own, none, told, 1), own, none))) < 0.03


def test_a_score_of_a_row_whose_label_was_told_comes_from_models_that_have_not_seen_it():
    """Columns of noise know nothing of labels: a score that remembered them would rank the rows that it was made from."""
    generator = np.random.default_rng(0)
    noise, told = generator.normal(size=(800, 4)), (generator.random(800) < 0.5).astype(np.int8)
    assert abs(roc_auc_score(told, scores(noise, told, "trees", 64, 1)) - 0.5) < 0.08


def test_other_rows_get_scores_on_the_same_scale():
    _, other, _, told = two_sides()
    assert (scores(other, told, "trees", 16, 3)[told == UNTOLD]
            == scores(other, told, "trees", 16, 3, other[told == UNTOLD])).all()


def test_too_few_labels_to_learn_from_are_refused():
    with pytest.raises(ContractError, match="too few to learn from"):
        scores(np.zeros((20, 1)), np.array([1] * 19 + [0], np.int8), "trees", 8, 0)
