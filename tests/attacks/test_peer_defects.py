"""What was found wrong in other aggregators, each as a test that ours is right.

The defects were reproduced with Flower 1.41 and ByzFL 0.0.11, or stand in their documentation (NVFLARE). Each test names
what happens there and shows, where a few lines can, that the naive way fails on the same input.
"""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from fedround.aggregation.engine import ArrayNumbers, FileNumbers, Row, Verdict, aggregate
from fedround.aggregation.rules import (
    Bulyan,
    CenteredClipping,
    CoordinateMedian,
    DivideAndConquer,
    FLTrust,
    GeometricMedian,
    Krum,
    Meamed,
    MinimumDiameter,
    MinimumSpectrum,
    MultiKrum,
    NearestToPivot,
    NormClipping,
    SpectralFilter,
    TrimmedMean,
    WeightedMean,
)
from fedround.aggregation.spec import Aggregation, ArcClipping, Bucketing, Gate, NearestNeighbourMixing
from tests.cohorts import bearing_one_less

N, D, F = 12, 300, 2
NNM = NearestNeighbourMixing(f=F)
EVERY = [Aggregation(rule=rule) for rule in (
    WeightedMean(), CoordinateMedian(), TrimmedMean(f=F), Meamed(f=F), Krum(f=F), MultiKrum(f=F), Bulyan(f=F),
    GeometricMedian(), CenteredClipping(radius=2.0), NormClipping(), MinimumDiameter(f=F), MinimumSpectrum(f=F),
    NearestToPivot(f=F), SpectralFilter(f=F), DivideAndConquer(f=F), FLTrust())] + [
    NNM >> TrimmedMean(f=F), NNM >> GeometricMedian(), Bucketing(size=2) >> CoordinateMedian(),
    ArcClipping(f=F) >> NNM >> TrimmedMean(f=F), Gate(f=F) >> NNM >> TrimmedMean(f=F)]
everything = pytest.mark.parametrize("how", EVERY, ids=str)
ROOT = np.full(D, 0.1, dtype=np.float32)


def cohort(seed=0, rows=N, spread=1.0):
    generator = np.random.default_rng(seed)
    return (spread * generator.standard_normal((rows, D)) + 0.2).astype(np.float32)


def rows_of(x_ND, weights=None):
    weights = [1.0] * len(x_ND) if weights is None else weights
    return [Row(f"site-{i:02d}", weights[i], ArrayNumbers(x_D)) for i, x_D in enumerate(x_ND)]


def run(x_ND, how, rows=None, **kwargs):
    return aggregate(rows or rows_of(x_ND), how, D, root=ArrayNumbers(ROOT), seed=b"plan", **kwargs)


# -- numbers that are none ---------------------------------------------------------------------------------------------


@everything
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf], ids=str)
def test_a_row_that_is_not_finite_changes_nothing(how, poison):
    """Flower's Krum gives a NaN update a NaN score, and argmin selects it; its Median and all of ByzFL's rules return NaN;
    its Bulyan stops the round."""
    x_ND = np.vstack([cohort(), cohort(1, 1)])
    x_ND[N, D // 2] = poison
    result = run(x_ND, how)
    assert result.delta_D.tobytes() == run(x_ND[:N], bearing_one_less(how)).delta_D.tobytes()
    assert np.isfinite(result.delta_D).all()
    assert result.standings["site-12"].verdict is Verdict.NOT_FINITE


def test_the_naive_krum_selects_the_poison():
    """The test above would fail on it: argmin takes NaN for the smallest."""
    x_ND = cohort().astype(float)
    x_ND[3, 0] = np.nan
    scores = [np.sort([np.square(row - other).sum() for other in x_ND])[:N - F].sum() for row in x_ND]
    assert np.isnan(scores[int(np.argmin(scores))])


# -- what a site says about itself -------------------------------------------------------------------------------------


def test_a_sites_own_count_of_its_examples_has_no_weight():
    """Flower weighs by the `num_examples` that a site reports: one site with 1e9 is the result. Here a row has no place for
    a claim: its weight is the federation file's, and the result is bounded by it."""
    assert list(inspect.signature(Row).parameters) == ["site", "weight", "numbers", "law"]
    x_ND = cohort()
    x_ND[0] = 1.0
    weights = [1.0] * N
    honest_D = run(x_ND, Aggregation(rule=WeightedMean())).delta_D
    assert honest_D == pytest.approx(np.average(x_ND, axis=0, weights=weights), abs=1e-6)
    claimed_D = np.average(x_ND, axis=0, weights=[1e9, *weights[1:]])
    assert claimed_D == pytest.approx(x_ND[0], abs=1e-6)                  # what a claim would have done
    assert np.linalg.norm(honest_D - x_ND[0]) > 10


# -- iterations that stop early ----------------------------------------------------------------------------------------


def test_the_geometric_median_is_converged():
    """ByzFL takes three steps of Weiszfeld from zero. Five of twelve rows are shifted by 100: three steps are far off."""
    x_ND = cohort(2)
    x_ND[:5] += 100

    def pull(point_D):
        arms_ND = x_ND.astype(float) - point_D
        return np.linalg.norm((arms_ND / np.linalg.norm(arms_ND, axis=1, keepdims=True)).sum(axis=0))

    three_D = np.zeros(D)
    for _ in range(3):
        weight_N = 1 / np.linalg.norm(x_ND - three_D, axis=1)
        three_D = weight_N @ x_ND / weight_N.sum()
    assert pull(run(x_ND, Aggregation(rule=GeometricMedian())).delta_D) < 1e-4
    assert pull(three_D) > 0.1


# -- very large numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [SpectralFilter(f=F), Krum(f=F), MultiKrum(f=F), MinimumDiameter(f=F), DivideAndConquer(f=F),
                                  TrimmedMean(f=F), CoordinateMedian(), GeometricMedian(), Bulyan(f=F), Meamed(f=F),
                                  MinimumSpectrum(f=F), NearestToPivot(f=F)], ids=lambda rule: rule.name)
@pytest.mark.parametrize("far", [1e4, 1e15, 1e30])
def test_a_huge_row_leaves_the_result_among_the_honest(rule, far):
    """One row at 1e15 moves ByzFL's CAF to 8e13 with f=2, and 1e30 is a TypeError."""
    x_ND = cohort(3)
    x_ND[4] = far
    honest_ND = np.delete(x_ND, 4, axis=0)
    middle_D = honest_ND.mean(axis=0)
    distance = np.linalg.norm(run(x_ND, Aggregation(rule=rule)).delta_D - middle_D)
    assert distance <= np.linalg.norm(honest_ND - middle_D, axis=1).max()


@everything
def test_finite_numbers_never_become_nan(how):
    for far in (3e38, 1e30, 1e15, 1e4, 1e-42, 0.0):
        x_ND = cohort(4)
        x_ND[0, ::2], x_ND[0, 1::2] = far, -far
        assert np.isfinite(run(x_ND, how).delta_D).all()


# -- state -------------------------------------------------------------------------------------------------------------


def test_the_centre_of_centered_clipping_comes_back_from_a_checkpoint(tmp_path):
    """ByzFL's CenteredClipping cannot be given its last centre: the check of the argument's type always raises. Here the
    centre is an argument; from a file it gives the same bytes as if the coordinator had never stopped."""
    how = Aggregation(rule=CenteredClipping(radius=0.5, steps=2))
    first, second = cohort(5), cohort(6)
    centre_D = run(first, how).delta_D
    unbroken = run(second, how, centre=ArrayNumbers(centre_D)).delta_D
    (tmp_path / "checkpoint").write_bytes(b"header.." + centre_D.astype("<f4").tobytes())
    resumed = run(second, how, centre=FileNumbers(tmp_path / "checkpoint", 8)).delta_D
    assert resumed.tobytes() == unbroken.tobytes()
    assert not np.allclose(unbroken, run(second, how).delta_D)            # the history matters
    # Four clipped steps from zero at most, in all: 2 rounds of 2 steps of radius 0.5.
    assert np.linalg.norm(unbroken) <= 4 * 0.5


@everything
def test_nothing_that_is_given_is_changed(how):
    """ByzFL's adaptive clipping scales the caller's own tensor."""
    x_ND = cohort(7)
    x_ND[0] *= 50
    before = x_ND.copy()
    x_ND.flags.writeable = False
    run(x_ND, how)
    assert np.array_equal(x_ND, before)


# -- cancellation ------------------------------------------------------------------------------------------------------


def test_distances_survive_a_common_offset():
    """torch.cdist (which ByzFL uses) multiplies matrices for more than 25 rows: of weights (offset 3, spread 1e-3) instead
    of deltas nothing is left, and a row is 0.8 away from itself. The naive float32 way shows the same."""
    x_ND = (3 + 1e-3 * np.random.default_rng(8).standard_normal((30, D))).astype(np.float32)
    exact_NN = np.linalg.norm(x_ND[:, None].astype(float) - x_ND[None], axis=2)
    distances_NN = run(x_ND, Aggregation(rule=Krum(f=5))).distances_NN
    assert distances_NN == pytest.approx(exact_NN, rel=1e-9, abs=1e-12)
    gram_NN = x_ND @ x_ND.T
    naive_NN = np.sqrt(np.maximum(gram_NN.diagonal()[:, None] + gram_NN.diagonal() - 2 * gram_NN, 0))
    assert np.abs(naive_NN - exact_NN).max() > 0.5 * exact_NN.max()


@pytest.mark.parametrize("rule", [Krum(f=F), MultiKrum(f=F), MinimumDiameter(f=F), NearestToPivot(f=F), SpectralFilter(f=F)],
                         ids=lambda rule: rule.name)
def test_a_choice_does_not_change_with_a_common_offset(rule):
    """Offset and spread are powers of two, so that float32 holds the shifted rows exactly."""
    x_ND = (np.round(cohort(9) * 256) / 256).astype(np.float32)
    shifted_ND = (x_ND + 1024).astype(np.float32)
    assert np.array_equal(shifted_ND - 1024, x_ND)
    chosen, again = (run(rows_ND, Aggregation(rule=rule)) for rows_ND in (x_ND, shifted_ND))
    for site, standing in chosen.standings.items():
        assert again.standings[site].influence == pytest.approx(standing.influence, abs=1e-9)


# -- arrival -----------------------------------------------------------------------------------------------------------


@everything
def test_the_order_of_arrival_does_not_change_one_bit(how):
    """NVFLARE documents that its result depends on it."""
    x_ND = cohort(10) * np.logspace(-3, 3, N)[:, None].astype(np.float32)
    rows = rows_of(x_ND, np.linspace(1, 3, N))
    first = run(None, how, rows).delta_D
    for seed in range(3):
        shuffled = [rows[i] for i in np.random.default_rng(seed).permutation(N)]
        assert run(None, how, shuffled).delta_D.tobytes() == first.tobytes()


def test_adding_up_in_the_order_of_arrival_does():
    x_ND = cohort(10) * np.logspace(-3, 3, N)[:, None].astype(np.float32)
    one, other = (sum(x_ND[i] for i in order) for order in (range(N), reversed(range(N))))
    assert one.tobytes() != other.tobytes()
