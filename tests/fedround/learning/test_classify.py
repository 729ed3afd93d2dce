"""A task of labels judges a model: exact metrics, what is left of them after noise, and a site's loss."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.errors import ContractError
from fedround.learning.tasks import SHOWN, SMALLEST_LOSS, Classify, Metrics, Scored
from fedround.learning.tasks.chances import calibration_error
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


@pytest.mark.parametrize("positives", [1, 9, 21, 47, 51, 57])
def test_a_perfect_ranking_is_one_and_not_a_last_bit_more(positives: int):
    """Scikit-learn's mean precision of nine is 1.0000000000000002: no round could be reported with such a model."""
    score_N = np.r_[np.linspace(0.6, 0.9, positives), 0.1, 0.2]
    reached = TWO.metrics(scored(score_N, np.r_[np.ones(positives, int), 0, 0]))
    assert (reached.auc, reached.pr_auc) == (1.0, 1.0)


def test_metrics_of_one_label_only_are_refused():
    with pytest.raises(ContractError, match="both labels"):
        TWO.metrics(scored(np.array([0.1, 0.9]), np.array([1, 1])))


def test_accuracy_of_two_classes_is_at_one_half():
    assert TWO.metrics(scored(np.array([0.4, 0.6, 0.5, 0.9]), np.array([0, 0, 1, 1]))).accuracy == 0.5


def test_accuracy_of_more_classes_needs_a_row_and_no_more():
    told = judged_of_three(np.array([[0.4, 0.3, 0.3], [0.2, 0.2, 0.6]]), np.array([0, 2]))
    found = THREE.metrics(told)
    assert (found.accuracy, found.macro_f1, found.rows) == (1.0, 1.0, 2)
    assert (found.calibration_error, found.log_loss) == pytest.approx((0.5, -np.log([0.4, 0.6]).mean()))
    with pytest.raises(ContractError, match="metrics need rows"):
        THREE.metrics(scored(np.empty(0), np.empty(0, np.int64)))


def judged_of_three(chance_NC, label_N) -> Scored:
    return THREE.scored_answers(chance_NC, {"y": label_N})


def test_two_classes_are_judged_as_scikit_learn_judges_them():
    from sklearn.metrics import accuracy_score, average_precision_score, log_loss, roc_auc_score

    generator = np.random.default_rng(8)
    label_N = generator.integers(0, 2, 500)
    for chance_N in (1 / (1 + np.exp(-generator.normal(2 * label_N - 1, 1.5))), np.round(generator.random(500), 1)):
        told = TWO.metrics(scored(chance_N, label_N))
        assert (told.auc, told.pr_auc, told.accuracy, told.log_loss) == pytest.approx((
            roc_auc_score(label_N, chance_N), average_precision_score(label_N, chance_N),
            accuracy_score(label_N, chance_N > 0.5), log_loss(label_N, chance_N)))


def test_more_classes_are_judged_as_scikit_learn_judges_them():
    """One label is rare, so that a mean over classes is not one over rows."""
    from sklearn.metrics import f1_score, log_loss

    generator = np.random.default_rng(9)
    label_N = generator.choice(3, 400, p=[0.6, 0.35, 0.05])
    chance_NC = generator.dirichlet(np.ones(3), 400) * 0.7 + 0.3 * np.eye(3)[label_N]
    told = THREE.metrics(judged_of_three(chance_NC, label_N))
    assert told.macro_f1 == pytest.approx(f1_score(label_N, chance_NC.argmax(axis=1), average="macro"))
    assert told.log_loss == pytest.approx(log_loss(label_N, chance_NC))
    assert abs(told.macro_f1 - told.accuracy) > 0.02


def test_the_calibration_error_is_that_of_a_loop_and_of_scikit_learns_curve():
    from sklearn.calibration import calibration_curve

    generator = np.random.default_rng(10)
    chance_N = generator.random(1000)
    label_N = (generator.random(1000) < chance_N ** 2).astype(np.int64)         # sure of too much
    found = calibration_error(chance_N, label_N)
    observed, predicted = calibration_curve(label_N, chance_N, n_bins=10, strategy="quantile")
    assert found == pytest.approx(np.abs(observed - predicted).mean(), abs=1e-3)
    by_rank, apart = sorted(zip(chance_N, label_N, strict=True)), 0.0
    for start in range(0, 1000, 100):
        said, was = zip(*by_rank[start:start + 100], strict=True)
        apart += abs(sum(said) - sum(was)) / 1000
    assert found == pytest.approx(apart)
    honest_N = (generator.random(1000) < chance_N).astype(np.int64)
    assert calibration_error(chance_N, honest_N) < 0.05 < 0.12 < found
    assert calibration_error(np.array([0.25]), np.array([1])) == 0.75


def test_a_chance_of_nothing_for_what_is_true_costs_much_and_not_everything():
    told = TWO.metrics(scored(np.array([0.0, 1.0, 0.0, 1.0]), np.array([1, 1, 0, 0])))
    assert 15 < told.log_loss < 20


def test_every_metric_that_is_known_has_words():
    told = Metrics(auc=0.75, recall_at_20_fpr=0.5, accuracy=0.25, rows=4)
    assert set(told.known()) < set(SHOWN) == set(Metrics.model_fields) - {"rows", "heads"}
    assert str(told) == "AUC 0.7500   recall at 20 % false positives 0.500   accuracy 0.250"


# -- from noised counts ------------------------------------------------------------------------------------------------


def test_pooled_counts_of_all_sites_give_the_metrics_of_all_rows():
    told, exact = sites(5, noise_std=0.0)
    reached = TWO.metrics_of(told)
    assert reached is not None
    assert reached.auc == pytest.approx(exact.auc, abs=0.003)
    assert reached.recall_at_20_fpr == pytest.approx(exact.recall_at_20_fpr, abs=0.02)
    assert reached.pr_auc == pytest.approx(exact.pr_auc, abs=0.01)
    assert reached.rows == exact.rows
    assert (reached.log_loss, reached.calibration_error) == (None, None), "bins do not determine them"


def test_precision_over_recall_from_counts_done_by_hand():
    """From the top: 3 of 4 are true, then 1 of 4. Half of each bin taken: precision 3/4, then 3.5 of 6."""
    reached = TWO.metrics_of([counts([1, 3], [3, 1])])
    assert reached.pr_auc == pytest.approx((3 * 3 / 4 + 1 * 3.5 / 6) / 4)
    assert TWO.metrics_of([counts([0, 4], [4, 0])]).pr_auc == 1.0
    assert TWO.metrics_of([counts([7, 7], [21, 21])]).pr_auc == pytest.approx(0.25), "of a model that guesses: the base rate"


def test_noise_moves_the_areas_but_does_not_bias_them():
    clean, exact = sites(6, noise_std=0.0, bins=10)
    generator, reached = np.random.default_rng(0), []
    for _ in range(200):
        noised = []
        for site in clean:
            negatives, positives = site.table + generator.normal(0, 10, (2, 10))
            noised.append(counts(positives, negatives, noise_std=10.0))
        found = TWO.metrics_of(noised)
        reached.append((found.auc, found.pr_auc))
    for values, known in zip(np.transpose(reached), (exact.auc, TWO.metrics_of(clean).pr_auc), strict=True):
        assert 0.005 < np.std(values) < 0.05
        assert np.mean(values) == pytest.approx(known, abs=0.01)


def test_the_margin_holds_the_metric_without_noise_in_about_95_of_100_repeats():
    """The law of what it says. Of 100 repeats, 88 to 99: a margin that is half as wide covers 67, of twice as wide 100."""
    clean, _ = sites(6, noise_std=0.0, bins=10)
    exact, generator = TWO.metrics_of(clean), np.random.default_rng(1)
    covered = {"auc": 0, "recall_at_20_fpr": 0, "pr_auc": 0}
    for _ in range(100):
        noised = [counts(*(site.table + generator.normal(0, 10, (2, 10)))[::-1], noise_std=10.0) for site in clean]
        found, margin = TWO.metrics_of(noised), TWO.margin_of(noised)
        for name in covered:
            covered[name] += abs(getattr(found, name) - getattr(exact, name)) <= margin.of(name)
    assert 88 <= covered["auc"] <= 99
    assert covered["recall_at_20_fpr"] >= 88
    assert 88 <= covered["pr_auc"] <= 99


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
    assert reached is None or all(0 <= value <= 1 for value in reached.known().values())


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
    assert THREE.metrics_of([quiet]).accuracy == pytest.approx(told["truth"].mean(), abs=0.01)
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
