"""What a model says of rows: a number in [0, 1] for each, and whether it is true."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedround.errors import ContractError
from fedround.learning.evaluate import scores
from fedround.learning.recipe import Examples, initial_tensors
from fedround.learning.task import Classify, Metrics


def test_scores_are_probabilities_one_for_each_row(recipe, examples):
    tensors = initial_tensors(recipe, 0)
    marks = scores(recipe, tensors, examples).chance_N
    assert marks.shape == (len(examples),)
    assert marks.dtype == np.float64
    assert ((marks > 0) & (marks < 1)).all()
    a, w, b, v = (tensors[name] for name in ("0.bias", "0.weight", "2.bias", "2.weight"))
    by_hand = 1 / (1 + np.exp(-(np.tanh(examples.features_NF @ w.T + a) @ v.T + b)[:, 0]))
    assert marks == pytest.approx(by_hand, abs=1e-6)


def test_no_rows_no_scores(recipe):
    empty = Examples(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))
    assert len(scores(recipe, initial_tensors(recipe, 0), empty)) == 0


def test_a_model_with_two_outputs_is_refused(recipe_with, examples):
    recipe = recipe_with("nn.Linear(3, 2)")
    with pytest.raises(ContractError, match="one logit for each row"):
        scores(recipe, initial_tensors(recipe, 0), examples)


def test_of_three_classes_the_chance_of_the_predicted_one_is_scored_against_whether_it_is_right(three_classes, three_labels):
    tensors = initial_tensors(three_classes, 0)
    told = scores(three_classes, tensors, three_labels)
    a, w, b, v = (tensors[name] for name in ("0.bias", "0.weight", "2.bias", "2.weight"))
    logits_NC = np.tanh(three_labels.features_NF @ w.T + a) @ v.T + b
    chances_NC = np.exp(logits_NC) / np.exp(logits_NC).sum(axis=1, keepdims=True)
    assert told.chance_N == pytest.approx(chances_NC.max(axis=1), abs=1e-6)
    right_N = chances_NC.argmax(axis=1) == three_labels.labels_N
    assert np.array_equal(told.truth_N, right_N)
    assert 0 < right_N.mean() < 1
    assert three_classes.task.metrics(told) == Metrics(accuracy=right_N.mean(), rows=60)


def test_a_model_with_fewer_logits_than_classes_and_other_labels_are_refused(three_classes, recipe_with, three_labels):
    narrow = dataclasses.replace(recipe_with("nn.Linear(3, 1)"), task=Classify(classes=3))
    with pytest.raises(ContractError, match="3 logits for each row"):
        scores(narrow, initial_tensors(narrow, 0), three_labels)
    two = dataclasses.replace(three_classes, task=Classify(classes=2))
    with pytest.raises(ContractError, match="from 0 to 1"):
        scores(two, initial_tensors(two, 0), three_labels)
