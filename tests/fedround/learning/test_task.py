"""A task judges a model: exact metrics, what is left of them after noise, and a site's loss."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.errors import ContractError
from fedround.learning.tasks import SMALLEST_LOSS, Classify, Margin, Metrics, Scored
from fedround.privacy.noise import stream
from fedround.statistics import Histogram, LocalEvaluation, Release, Scores, release


def scored(score_N, truth_N) -> Scored:
    return Scored({"score": score_N, "truth": truth_N})


TWO, THREE = Classify(), Classify(classes=3)


class Told:
    """A site that holds out these scores."""

    def __init__(self, scored: Scored):
        self._scored = scored

    def scores(self):
        return self._scored.numbers

    def column(self, name):
        raise AssertionError(f"scores are not counted in '{name}'")


def noise(seed: int = 0):
    return stream(bytes(32), b"test", str(seed).encode())


def counted(scored: Scored, evaluation: LocalEvaluation, public: Scored | None = None, seed: int = 0) -> Release:
    return release(TWO.statistic(evaluation, public), Told(scored), noise(seed))


def counts(positives, negatives, noise_std: float = 0.0, edges=()) -> Release:
    statistic = Scores(noise_std=noise_std, bins=len(positives), edges=edges)
    return Release(statistic=statistic, numbers=tuple(map(float, (*negatives, *positives))), mechanism=statistic.mechanism)


def sites(number: int, noise_std: float, bins: int = 50) -> tuple[list[Release], Metrics]:
    """Counts of some sites, and the exact metrics of their rows together."""
    generator = np.random.default_rng(number)
    labels = generator.integers(0, 2, (number, 400))
    marks = 1 / (1 + np.exp(-generator.normal(labels, 1.0)))
    evaluation = LocalEvaluation(bins=bins, noise_std=noise_std)
    told = [counted(scored(marks[site], labels[site]), evaluation, seed=site) for site in range(number)]
    return told, TWO.metrics(scored(marks.ravel(), labels.ravel()))


# -- exact -------------------------------------------------------------------------------------------------------------


def test_auc_and_recall_of_a_ranking_done_by_hand():
    """Positives at 0.9 0.6 0.2, negatives at 0.8 0.5 0.4 0.3 0.1: 9 of 15 pairs are in order."""
    marks = np.array([0.9, 0.6, 0.2, 0.8, 0.5, 0.4, 0.3, 0.1])
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    reached = TWO.metrics(scored(marks, labels))
    assert reached.auc == pytest.approx((5 + 4 + 1) / 15)
    assert reached.recall_at_20_fpr == pytest.approx(2 / 3)
    assert reached.rows == 8


def test_metrics_of_one_label_only_are_refused():
    with pytest.raises(ContractError, match="both labels"):
        TWO.metrics(scored(np.array([0.1, 0.9]), np.array([1, 1])))


def test_accuracy_of_two_classes_is_at_one_half():
    assert TWO.metrics(scored(np.array([0.4, 0.6, 0.5, 0.9]), np.array([0, 0, 1, 1]))).accuracy == 0.5


def test_accuracy_of_more_classes_needs_a_row_and_no_more():
    assert THREE.metrics(scored(np.array([0.4, 0.6]), np.array([1, 1]))) == Metrics(accuracy=1.0, rows=2)
    with pytest.raises(ContractError, match="metrics need rows"):
        THREE.metrics(scored(np.empty(0), np.empty(0, np.int64)))


def test_every_metric_that_is_known_has_words():
    told = Metrics(auc=0.75, recall_at_20_fpr=0.5, accuracy=0.25, rows=4)
    assert set(told.known()) < set(Metrics.words) == set(Metrics.model_fields) - {"rows", "heads"}
    assert set(Margin.model_fields) == set(Metrics.model_fields) - {"rows"}
    assert str(told) == "AUC 0.7500   recall at 20 % false positives 0.500   accuracy 0.250"


# -- from noised counts ------------------------------------------------------------------------------------------------


def test_pooled_counts_of_all_sites_give_the_metrics_of_all_rows():
    told, exact = sites(5, noise_std=0.0)
    reached = TWO.metrics_of(told)
    assert reached is not None
    assert reached.auc == pytest.approx(exact.auc, abs=0.003)
    assert reached.recall_at_20_fpr == pytest.approx(exact.recall_at_20_fpr, abs=0.02)
    assert reached.rows == exact.rows


def test_noise_moves_the_auc_but_does_not_bias_it():
    exact = sites(6, noise_std=0.0, bins=10)[1].auc
    generator, reached = np.random.default_rng(0), []
    clean, _ = sites(6, noise_std=0.0, bins=10)
    for _ in range(200):
        noised = []
        for site in clean:
            negatives, positives = site.table + generator.normal(0, 10, (2, 10))
            noised.append(counts(positives, negatives, noise_std=10.0))
        reached.append(TWO.metrics_of(noised).auc)
    assert 0.005 < np.std(reached) < 0.05
    assert np.mean(reached) == pytest.approx(exact, abs=0.01)


def test_the_margin_holds_the_metric_without_noise_in_about_95_of_100_repeats():
    """The law of what it says. Of 100 repeats, 88 to 99: a margin that is half as wide covers 67, of twice as wide 100."""
    clean, _ = sites(6, noise_std=0.0, bins=10)
    exact, generator, covered = TWO.metrics_of(clean), np.random.default_rng(1), {"auc": 0, "recall_at_20_fpr": 0}
    for _ in range(100):
        noised = [counts(*(site.table + generator.normal(0, 10, (2, 10)))[::-1], noise_std=10.0) for site in clean]
        found, margin = TWO.metrics_of(noised), TWO.margin_of(noised)
        for name in covered:
            covered[name] += abs(getattr(found, name) - getattr(exact, name)) <= margin.of(name)
    assert 88 <= covered["auc"] <= 99
    assert covered["recall_at_20_fpr"] >= 88


def test_what_is_not_noised_or_hidden_has_no_margin_and_the_same_counts_have_the_same():
    assert TWO.margin_of([]) is None
    assert TWO.margin_of(sites(2, noise_std=0.0)[0]) is None
    assert TWO.margin_of(sites(2, noise_std=500.0)[0]) is None
    told, _ = sites(4, noise_std=4.0)
    assert TWO.margin_of(told) == TWO.margin_of(told) != TWO.margin_of(told[:2])


def test_nothing_is_told_when_noise_leaves_nothing():
    assert TWO.metrics_of([]) is None
    assert TWO.metrics_of(sites(2, noise_std=500.0)[0]) is None


@given(st.permutations(range(4)))
def test_the_order_of_sites_does_not_matter(order):
    told, _ = sites(4, noise_std=4.0)
    reached = TWO.metrics_of(told)
    assert reached is not None
    shuffled = TWO.metrics_of([told[site] for site in order])
    assert shuffled is not None
    assert shuffled.auc == pytest.approx(reached.auc)


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=2, max_size=12))
def test_any_counts_give_a_metric_within_bounds_or_none(bins):
    positives, negatives = zip(*bins, strict=True)
    reached = TWO.metrics_of([counts(positives, negatives, noise_std=0.5)])
    assert reached is None or (0 <= reached.auc <= 1 and 0 <= reached.recall_at_20_fpr <= 1)


def test_public_edges_tell_what_bins_of_equal_width_lose():
    """A model that is sure of itself: nearly all scores lie in the first of ten equal bins."""
    generator = np.random.default_rng(5)
    labels = (generator.random(4000) < 0.3).astype(np.int64)
    marks = 1 / (1 + np.exp(-(generator.normal(size=4000) + 1.2 * labels - 5)))
    exact = TWO.metrics(scored(marks, labels)).auc
    evaluation = LocalEvaluation(bins=10, noise_std=0.0)
    public = scored(1 / (1 + np.exp(-(generator.normal(size=2000) - 4.6))), np.zeros(2000, np.int64))
    equal, by_quantile = (TWO.metrics_of([counted(scored(marks, labels), evaluation, seen)]) for seen in (None, public))
    assert equal is not None
    assert by_quantile is not None
    assert abs(by_quantile.auc - exact) < 0.02 < 0.1 < abs(equal.auc - exact)
    assert np.bincount(np.searchsorted(TWO.statistic(evaluation, public).inner, public["score"]), minlength=10).tolist() == (
        [200] * 10)


def test_noised_counts_of_three_classes_tell_the_accuracy_and_nothing_when_noise_leaves_nothing():
    generator = np.random.default_rng(3)
    told = scored(generator.random(4000), (generator.random(4000) < 0.9).astype(np.int64))
    quiet, drowned = (counted(told, LocalEvaluation(bins=10, noise_std=noise_std)) for noise_std in (4.0, 1000.0))
    assert THREE.metrics_of([quiet]).accuracy == pytest.approx(THREE.metrics(told).accuracy, abs=0.01)
    assert THREE.metrics_of([quiet]).auc is None
    assert THREE.metrics_of([drowned]) is None


def test_a_model_is_judged_by_scores_and_by_nothing_else():
    other = Histogram(noise_std=0.0, column="age", edges=(1.0,))
    told = Release(statistic=other, numbers=(1.0, 2.0, 3.0), mechanism=other.mechanism)
    with pytest.raises(ContractError, match="judged by its scores, got a release of kind 'histogram'"):
        TWO.mean_loss(told)


# -- a site's loss -----------------------------------------------------------------------------------------------------


def test_a_loss_is_one_less_the_mean_chance_of_the_true_label():
    """Bins of [0, 0.5) and [0.5, 1]: middles 0.25 and 0.75."""
    assert TWO.mean_loss(counts([10, 30], [40, 20])) == pytest.approx(
        (10 * 0.75 + 30 * 0.25 + 40 * 0.25 + 20 * 0.75) / 100)
    assert TWO.mean_loss(counts([10, 30], [40, 20], edges=(0.1,))) == pytest.approx(
        (10 * 0.95 + 30 * 0.45 + 40 * 0.05 + 20 * 0.55) / 100)
    assert THREE.mean_loss(counts([0, 30], [10, 0])) == pytest.approx(0.25)       # more labels: the share that is wrong
    assert TWO.mean_loss(counts([0, 100], [100, 0], edges=(0.5,))) == pytest.approx(0.25)
    assert THREE.mean_loss(counts([0, 100], [0, 0])) == SMALLEST_LOSS


@given(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4), st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4),
       st.sampled_from([TWO, Classify(classes=5)]), st.floats(0.01, 100))
def test_a_loss_is_bounded_whatever_counts_a_site_sends(positives, negatives, task, noise_std):
    found = task.mean_loss(counts(positives, negatives, noise_std))
    assert found is None or SMALLEST_LOSS <= found <= 1


def test_noise_that_drowns_the_rows_tells_no_loss():
    assert TWO.mean_loss(counts([10, 30], [40, 20], noise_std=20.0)) is None
    assert TWO.mean_loss(counts([10, 30], [40, 20], noise_std=10.0)) is not None


def test_the_noise_of_a_loss_is_what_is_promised():
    generator, clean = np.random.default_rng(1), np.array([[300.0] * 10, [100.0] * 10])
    found = [TWO.mean_loss(counts(*(clean + generator.normal(0, 20, (2, 10))), noise_std=20.0)) for _ in range(2000)]
    assert np.std(found) < 20 * np.sqrt(20) / 4000
    assert np.mean(found) == pytest.approx(0.5, abs=0.01)
