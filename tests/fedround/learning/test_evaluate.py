"""Exact metrics, and what is left of them after noise."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.errors import ContractError
from fedround.learning.evaluate import Metrics, Scores, metrics, metrics_from_counts, public_edges, score_counts, scores
from fedround.learning.recipe import Examples, initial_tensors
from fedround.privacy.noise import stream
from fedround.records import ScoreCounts
from fedround.statistics import LocalEvaluation


def noise(seed: int = 0):
    return stream(bytes(32), b"test", str(seed).encode())


def sites(number: int, noise_std: float, bins: int = 50) -> tuple[list[ScoreCounts], Metrics]:
    """Counts of some sites, and the exact metrics of their rows together."""
    generator = np.random.default_rng(number)
    labels = generator.integers(0, 2, (number, 400))
    marks = 1 / (1 + np.exp(-generator.normal(labels, 1.0)))
    evaluation = LocalEvaluation(bins=bins, noise_std=noise_std)
    counts = [score_counts(Scores(marks[site], labels[site]), evaluation, noise(site)) for site in range(number)]
    return counts, metrics(Scores(marks.ravel(), labels.ravel()))


def test_auc_and_recall_of_a_ranking_done_by_hand():
    """Positives at 0.9 0.6 0.2, negatives at 0.8 0.5 0.4 0.3 0.1: 9 of 15 pairs are in order."""
    marks = np.array([0.9, 0.6, 0.2, 0.8, 0.5, 0.4, 0.3, 0.1])
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    reached = metrics(Scores(marks, labels))
    assert reached.auc == pytest.approx((5 + 4 + 1) / 15)
    assert reached.recall_at_20_fpr == pytest.approx(2 / 3)
    assert reached.rows == 8


def test_metrics_of_one_label_only_are_refused():
    with pytest.raises(ContractError, match="both labels"):
        metrics(Scores(np.array([0.1, 0.9]), np.array([1, 1])))


def test_counts_without_noise_are_the_histogram_and_the_last_bin_includes_one():
    counts = score_counts(Scores(np.array([0.0, 0.24, 0.25, 0.99, 1.0]), np.array([0, 0, 1, 1, 1])),
                          LocalEvaluation(bins=4, noise_std=0.0), noise())
    assert counts.negatives == (2, 0, 0, 0)
    assert counts.positives == (0, 1, 0, 2)


def test_every_count_gets_its_own_noise_of_the_agreed_size():
    evaluation = LocalEvaluation(bins=1000, noise_std=20.0)
    counts = score_counts(Scores(np.array([0.5]), np.array([1])), evaluation, noise())
    drawn = np.array(counts.negatives + counts.positives)
    assert drawn.std() == pytest.approx(20, rel=0.1)
    assert drawn.min() < 0, "negative counts are not cut: cutting would bias what is made of them"
    assert abs(np.corrcoef(counts.negatives, counts.positives)[0, 1]) < 0.15


def test_one_record_changes_one_count_by_one():
    """The sensitivity that the accountant relies on: with the same noise, the two histograms differ in one count."""
    generator = np.random.default_rng(0)
    marks, labels = generator.random(30), generator.integers(0, 2, 30)
    with_it, without = (score_counts(Scores(marks[:rows], labels[:rows]), LocalEvaluation(bins=7), noise())
                        for rows in (30, 29))
    change = np.array(with_it.negatives + with_it.positives) - np.array(without.negatives + without.positives)
    assert sorted(np.abs(change)) == pytest.approx([0] * 13 + [1])


def test_pooled_counts_of_all_sites_give_the_metrics_of_all_rows():
    counts, exact = sites(5, noise_std=0.0)
    told = metrics_from_counts(counts)
    assert told is not None
    assert told.auc == pytest.approx(exact.auc, abs=0.003)
    assert told.recall_at_20_fpr == pytest.approx(exact.recall_at_20_fpr, abs=0.02)
    assert told.rows == exact.rows


def test_noise_moves_the_auc_but_does_not_bias_it():
    exact = sites(6, noise_std=0.0, bins=10)[1].auc
    generator, told = np.random.default_rng(0), []
    counts, _ = sites(6, noise_std=0.0, bins=10)
    for _ in range(200):
        noised = [ScoreCounts(positives=tuple(np.add(site.positives, generator.normal(0, 10, 10)).tolist()),
                              negatives=tuple(np.add(site.negatives, generator.normal(0, 10, 10)).tolist()),
                              noise_std=10.0) for site in counts]
        told.append(metrics_from_counts(noised).auc)
    assert 0.005 < np.std(told) < 0.05
    assert np.mean(told) == pytest.approx(exact, abs=0.01)


def test_nothing_is_told_when_noise_leaves_nothing():
    assert metrics_from_counts([]) is None
    assert metrics_from_counts(sites(2, noise_std=500.0)[0]) is None


@given(st.permutations(range(4)))
def test_the_order_of_sites_does_not_matter(order):
    counts, _ = sites(4, noise_std=4.0)
    told = metrics_from_counts(counts)
    assert told is not None
    shuffled = metrics_from_counts([counts[site] for site in order])
    assert shuffled is not None
    assert shuffled.auc == pytest.approx(told.auc)


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=2, max_size=12))
def test_any_counts_give_a_metric_within_bounds_or_none(bins):
    positives, negatives = zip(*bins, strict=True)
    told = metrics_from_counts([ScoreCounts(positives=positives, negatives=negatives, noise_std=0.5)])
    assert told is None or (0 <= told.auc <= 1 and 0 <= told.recall_at_20_fpr <= 1)


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


def test_public_edges_tell_what_bins_of_equal_width_lose():
    """A model that is sure of itself: nearly all scores lie in the first of ten equal bins."""
    generator = np.random.default_rng(5)
    labels = (generator.random(4000) < 0.3).astype(np.int64)
    marks = 1 / (1 + np.exp(-(generator.normal(size=4000) + 1.2 * labels - 5)))
    exact = metrics(Scores(marks, labels)).auc
    evaluation = LocalEvaluation(bins=10, noise_std=0.0)
    public = 1 / (1 + np.exp(-(generator.normal(size=2000) - 4.6)))
    equal, by_quantile = (metrics_from_counts([score_counts(Scores(marks, labels), evaluation, noise(), edges)])
                          for edges in ((), public_edges(Scores(public, np.zeros(2000, np.int64)), 10)))
    assert equal is not None
    assert by_quantile is not None
    assert abs(by_quantile.auc - exact) < 0.02 < 0.1 < abs(equal.auc - exact)


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
    assert metrics(told) == Metrics(accuracy=right_N.mean(), rows=60)


def test_noised_counts_of_three_classes_tell_the_accuracy_and_nothing_when_noise_leaves_nothing():
    generator = np.random.default_rng(3)
    told = Scores(generator.random(4000), (generator.random(4000) < 0.9).astype(np.int64), classes=3)
    counts = score_counts(told, LocalEvaluation(bins=10, noise_std=4.0), noise())
    assert metrics_from_counts([counts], classes=3).accuracy == pytest.approx(metrics(told).accuracy, abs=0.01)
    assert metrics_from_counts([counts], classes=3).auc is None
    drowned = score_counts(told, LocalEvaluation(bins=10, noise_std=1000.0), noise())
    assert metrics_from_counts([drowned], classes=3) is None


def test_accuracy_of_two_classes_is_at_one_half():
    assert metrics(Scores(np.array([0.4, 0.6, 0.5, 0.9]), np.array([0, 0, 1, 1]))).accuracy == 0.5


def test_a_model_with_fewer_logits_than_classes_and_other_labels_are_refused(three_classes, recipe_with, three_labels):
    narrow = dataclasses.replace(recipe_with("nn.Linear(3, 1)"), classes=3)
    with pytest.raises(ContractError, match="3 logits for each row"):
        scores(narrow, initial_tensors(narrow, 0), three_labels)
    two = dataclasses.replace(three_classes, classes=2)
    with pytest.raises(ContractError, match="from 0 to 1"):
        scores(two, initial_tensors(two, 0), three_labels)
