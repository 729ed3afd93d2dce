"""Laws of the linear rules: what they may depend on, and what no input may do to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedround.aggregation import spectral
from fedround.aggregation.linear import bulyan_selection, solve
from fedround.aggregation.rules import (
    CenteredClipping,
    DivideAndConquer,
    FLTrust,
    GeometricMedian,
    Krum,
    MinimumDiameter,
    MinimumSpectrum,
    MultiKrum,
    NearestToPivot,
    NormClipping,
    SpectralFilter,
    WeightedMean,
)
from fedround.errors import ContractError, ToleranceError
from tests.geometries import geometry_of, result_of

F = 2
COUNTING = [Krum(f=F), MultiKrum(f=F), NearestToPivot(f=F), MinimumDiameter(f=F), MinimumSpectrum(f=F), SpectralFilter(f=F),
            DivideAndConquer(f=F)]
WEIGHING = [WeightedMean(), GeometricMedian(), NormClipping(), CenteredClipping(radius=1.0)]
RULES = [*COUNTING, *WEIGHING, FLTrust()]
ROOT = np.array([0.4, -0.3, 0.2, 0.1, 0.6])

every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
seeds = st.integers(0, 2**32 - 1)


def cohort(seed, rows=9):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((rows, len(ROOT))) + 0.3, generator.uniform(0.5, 4.0, rows)


@every_rule
@settings(max_examples=20)
@given(seed=seeds)
def test_the_order_of_sites_does_not_matter(rule, seed):
    x_ND, weight_N = cohort(seed)
    order = np.random.default_rng(seed + 1).permutation(len(x_ND))
    expected_D = result_of(rule, x_ND, weight_N, root=ROOT)
    assert result_of(rule, x_ND[order], weight_N[order], root=ROOT) == pytest.approx(expected_D, rel=1e-6, abs=1e-6)


@every_rule
@settings(max_examples=20)
@given(seed=seeds, reference=st.integers(0, 8))
def test_the_reference_of_the_gram_matrix_does_not_matter(rule, seed, reference):
    x_ND, weight_N = cohort(seed)
    expected_D = result_of(rule, x_ND, weight_N, 0, root=ROOT)
    assert result_of(rule, x_ND, weight_N, reference, root=ROOT) == pytest.approx(expected_D, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("rule", [*COUNTING, WeightedMean(), GeometricMedian()], ids=lambda rule: rule.name)
@settings(max_examples=20)
@given(seed=seeds, factor=st.floats(1e-3, 1e3), shift=st.floats(-100, 100))
def test_a_result_moves_and_grows_with_its_rows(rule, seed, factor, shift):
    x_ND, weight_N = cohort(seed)
    expected_D = factor * result_of(rule, x_ND, weight_N) + shift
    assert result_of(rule, factor * x_ND + shift, weight_N) == pytest.approx(expected_D, rel=1e-5, abs=1e-5 * (factor + 1))


@every_rule
@pytest.mark.parametrize("kind", ["same", "zero", "same but two", "line", "huge", "tiny"])
def test_no_finite_input_makes_nan(rule, kind):
    x_ND, _ = cohort(1)
    rows_ND = {
        "same": np.tile(x_ND[0], (9, 1)), "zero": np.zeros((9, 5)), "line": np.outer(np.arange(9.0), x_ND[0]),
        "same but two": np.vstack([np.tile(x_ND[0], (7, 1)), x_ND[:2]]), "tiny": 1e-40 * x_ND,
        "huge": np.vstack([x_ND[:7], 3e38 * np.ones((1, 5)), -3e38 * np.ones((1, 5))]),
    }[kind]
    for root in (ROOT, np.zeros(5), 3e38 * ROOT):
        coefficients_P = solve(rule, geometry_of(rows_ND, root=root))
        assert np.isfinite(coefficients_P).all()
        assert coefficients_P.sum() == pytest.approx(1, abs=1e-12 * np.abs(coefficients_P).sum())


@pytest.mark.parametrize("rule", [WeightedMean(), GeometricMedian(), NormClipping(), CenteredClipping(radius=1e9), FLTrust(),
                                  *(kind(f=0) for kind in (NearestToPivot, MinimumDiameter, MinimumSpectrum, SpectralFilter,
                                                           DivideAndConquer))], ids=lambda rule: rule.name)
def test_one_row_is_its_own_result(rule):
    x_ND = np.array([[3.0, -4.0]])
    assert result_of(rule, x_ND, root=x_ND[0]) == pytest.approx(x_ND[0], rel=1e-12)


@pytest.mark.parametrize("kind", [NearestToPivot, MinimumDiameter, MinimumSpectrum, SpectralFilter, DivideAndConquer])
def test_without_liars_a_rule_is_the_mean(kind):
    x_ND, _ = cohort(3)
    assert result_of(kind(f=0), x_ND) == pytest.approx(x_ND.mean(axis=0), rel=1e-12)


@pytest.mark.parametrize("rule", [*COUNTING, GeometricMedian()], ids=lambda rule: rule.name)
@pytest.mark.parametrize("far", [1e3, 1e15, 1e30])
def test_two_far_rows_do_not_pull_the_result_from_the_honest(rule, far):
    x_ND, _ = cohort(4, rows=12)
    x_ND[[2, 7]] = [[far] * 5, [far, -far, far, 0, 0]]
    honest_ND = np.delete(x_ND, [2, 7], axis=0)
    middle_D = honest_ND.mean(axis=0)
    radius = np.linalg.norm(honest_ND - middle_D, axis=1).max()
    assert np.linalg.norm(result_of(rule, x_ND, reference=3) - middle_D) <= radius


@pytest.mark.parametrize("rule", [NormClipping(), CenteredClipping(radius=1.0)], ids=lambda rule: rule.name)
def test_a_far_row_pulls_a_clipping_rule_by_its_share_only(rule):
    x_ND, _ = cohort(5, rows=10)
    far_ND = np.vstack([x_ND, 1e15 * np.ones((1, 5))])
    assert np.linalg.norm(result_of(rule, far_ND) - result_of(rule, x_ND)) < 1.0


@pytest.mark.parametrize("rule", COUNTING, ids=lambda rule: rule.name)
def test_rules_that_count_liars_count_every_site_the_same(rule):
    x_ND, weight_N = cohort(6)
    assert np.array_equal(result_of(rule, x_ND, 1000 * weight_N), result_of(rule, x_ND))


@pytest.mark.parametrize("rule", WEIGHING, ids=lambda rule: rule.name)
def test_a_weight_of_two_is_two_sites(rule):
    x_ND, _ = cohort(7, rows=6)
    twice_ND, weight_N = np.vstack([x_ND, x_ND[:1]]), [2, 1, 1, 1, 1, 1]
    if isinstance(rule, NormClipping):      # its median norm counts sites: keep it
        twice_ND = twice_ND / np.linalg.norm(twice_ND, axis=1, keepdims=True)
        x_ND = twice_ND[:6]
    assert result_of(rule, x_ND, weight_N) == pytest.approx(result_of(rule, twice_ND), rel=1e-9, abs=1e-9)


def test_weights_that_are_very_large_do_not_overflow():
    x_ND, _ = cohort(8, rows=4)
    assert result_of(WeightedMean(), x_ND, [1.7e308] * 4) == pytest.approx(x_ND.mean(axis=0))


@pytest.mark.parametrize("rule", COUNTING, ids=lambda rule: rule.name)
def test_a_cohort_below_the_theorem_is_refused_by_name(rule):
    x_ND, _ = cohort(9, rows=rule.fewest_rows() - 1)
    with pytest.raises(ToleranceError, match=r"et al|and Houmansadr"):
        result_of(rule, x_ND)
    assert np.isfinite(result_of(rule, cohort(9, rows=rule.fewest_rows())[0])).all()


def test_exact_ties_go_to_the_first_site():
    square_ND = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.5, 0.5]])
    coefficients_P = solve(Krum(f=1), geometry_of(square_ND - [0.5, 0.5]))
    assert coefficients_P.tolist() == [0, 0, 0, 0, 1, 0]                        # the middle one is nearest to all
    ring_ND = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [2.0, 2.0]])
    assert solve(Krum(f=1), geometry_of(ring_ND)).argmax() == 0                 # two of the ring have the same score


def test_the_sign_of_eigenvectors_does_not_matter(monkeypatch):
    x_ND, _ = cohort(10)
    before = [result_of(rule, x_ND) for rule in (SpectralFilter(f=F), DivideAndConquer(f=F))]
    eigh = np.linalg.eigh

    def flipped(matrix_KK):
        values, vectors_KK = eigh(matrix_KK)
        return values, -vectors_KK

    monkeypatch.setattr(spectral.np.linalg, "eigh", flipped)
    for rule, expected_D in zip((SpectralFilter(f=F), DivideAndConquer(f=F)), before, strict=True):
        assert np.array_equal(result_of(rule, x_ND), expected_D)


def test_where_several_directions_are_first_none_is_preferred():
    """Four rows on a cross: every direction of the plane has the same variance, so all four stick out alike."""
    cross_ND = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [0.0, 0.0]])
    assert result_of(SpectralFilter(f=1), cross_ND) == pytest.approx(np.zeros(2), abs=1e-12)


def test_the_geometric_median_is_where_unit_pulls_balance():
    x_ND, weight_N = cohort(11, rows=12)
    arms_ND = x_ND - result_of(GeometricMedian(), x_ND, weight_N)
    pull_D = (weight_N / np.linalg.norm(arms_ND, axis=1)) @ arms_ND
    assert np.linalg.norm(pull_D) < 1e-9 * weight_N.sum()


def test_the_geometric_median_of_a_heavy_row_is_that_row():
    x_ND, _ = cohort(12, rows=5)
    assert result_of(GeometricMedian(), x_ND, [1, 1, 5, 1, 1]) == pytest.approx(x_ND[2], abs=1e-6)


def test_the_smallest_diameter_is_exact_also_when_many_sites_lie():
    """Fifty rows, twelve liars: 1e11 subsets, one of which is right."""
    x_ND, _ = cohort(13, rows=50)
    x_ND[:12] = 6 * x_ND[:12] + 20
    coefficients_P = solve(MinimumDiameter(f=12), geometry_of(x_ND, reference=20))
    assert np.flatnonzero(coefficients_P).tolist() == list(range(12, 50))


def test_fltrust_needs_a_root_and_ignores_who_goes_against_it():
    x_ND = np.array([[2.0, 0.0], [0.0, 5.0], [-9.0, 0.0]])
    with pytest.raises(ContractError, match="give it a root set"):
        result_of(FLTrust(), x_ND)
    assert result_of(FLTrust(), x_ND, root=np.array([1.0, 0.0])) == pytest.approx([1.0, 0.0])
    assert np.array_equal(result_of(FLTrust(), x_ND, root=np.array([0.0, -1.0])), [0.0, 0.0])


def test_bulyan_selects_no_far_row_that_is_alone():
    x_ND, _ = cohort(14, rows=11)
    x_ND[1], x_ND[8] = 50, -70
    chosen = bulyan_selection(geometry_of(x_ND), F)
    assert len(chosen) == 7
    assert not {1, 8} & set(chosen)


def test_nothing_that_is_given_is_changed():
    x_ND, weight_N = cohort(15)
    geometry = geometry_of(x_ND, weight_N, root=ROOT)
    for array in (geometry.gram_PP, geometry.combos_KP, geometry.weight_K):
        array.flags.writeable = False
    for rule in RULES:
        solve(rule, geometry)
