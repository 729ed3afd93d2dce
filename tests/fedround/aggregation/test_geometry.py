"""Points of which only inner products are known say what the vectors would."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedround.aggregation.geometry import Geometry
from fedround.errors import ContractError
from tests.geometries import geometry_of, points_of


def cohort(seed, rows=6):
    return np.random.default_rng(seed).standard_normal((rows, 4)) + 1


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), reference=st.integers(0, 5))
def test_distances_norms_and_inner_products_are_those_of_the_vectors(seed, reference):
    x_ND, centre_D = cohort(seed), cohort(seed + 1)[0]
    geometry = geometry_of(x_ND, reference=reference, centre=centre_D)
    assert np.sqrt(geometry.squared_distances_KK()) == pytest.approx(np.linalg.norm(x_ND[:, None] - x_ND, axis=2), abs=1e-6)
    assert geometry.norms_K() == pytest.approx(np.linalg.norm(x_ND, axis=1))
    assert geometry.distances_to(geometry.point("centre")) == pytest.approx(np.linalg.norm(x_ND - centre_D, axis=1))
    assert geometry.inner_products(geometry.origin_P) == pytest.approx(x_ND @ x_ND.T)


def test_what_is_mixed_scaled_and_chosen_stays_a_combination_of_the_points():
    x_ND, generator = cohort(1), np.random.default_rng(2)
    mixing_MK, factor_M = generator.dirichlet(np.ones(6), size=3), np.array([0.2, 1.0, 3.0])
    geometry = geometry_of(x_ND).mixed(mixing_MK, np.ones(3)).scaled(factor_M).only([2, 0])
    expected_KD = (factor_M[:, None] * (mixing_MK @ x_ND))[[2, 0]]
    assert geometry.combos_KP @ points_of(x_ND)[0] == pytest.approx(expected_KD)
    assert geometry.norms_K() == pytest.approx(np.linalg.norm(expected_KD, axis=1))
    assert len(geometry) == 2


def test_squared_distances_are_never_negative_and_zero_to_oneself():
    """Rows that differ in their last bits, far from the reference: rounding is larger than the distances."""
    x_ND = np.vstack([np.zeros(4), 1e8 + 1e-7 * cohort(3, 5)])
    d2_KK = geometry_of(x_ND).squared_distances_KK()
    assert (d2_KK >= 0).all()
    assert (d2_KK.diagonal() == 0).all()
    assert np.array_equal(d2_KK, d2_KK.T)


def test_an_extra_point_is_there_by_name_or_not_at_all():
    assert geometry_of(cohort(4)).point("root") is None
    geometry = geometry_of(cohort(4), centre=np.ones(4), root=np.zeros(4))
    assert geometry.point("root").tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert geometry.origin_P.tolist() == [0, 0, 0, 0, 0, 0, 1, 0, 0]


@pytest.mark.parametrize("problem", [
    {"gram_PP": np.eye(3)[:2]}, {"gram_PP": np.full((3, 3), np.nan)}, {"weight_K": np.array([1.0, 0.0])},
    {"weight_K": np.array([1.0, np.inf])}, {"weight_K": np.array([1.0])}, {"sites": 3}, {"sites": 0}, {"extra": {"root": 2}},
    {"combos_KP": np.empty((0, 3)), "weight_K": np.empty(0)},
], ids=str)
def test_what_does_not_fit_is_refused(problem):
    fine = {"gram_PP": np.eye(3), "sites": 2, "combos_KP": np.eye(2, 3), "weight_K": np.ones(2)}
    Geometry(**fine)
    with pytest.raises(ContractError):
        Geometry(**{**fine, **problem})
