"""Laws of what happens to rows before a rule sees them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedround.aggregation.linear import solve
from fedround.aggregation.mixing import mix, shuffled
from fedround.aggregation.rules import WeightedMean
from fedround.aggregation.spec import ArcClipping, Bucketing, NearestNeighbourMixing, StaticClipping
from fedround.errors import ToleranceError
from tests.geometries import geometry_of, points_of

MIXINGS = [NearestNeighbourMixing(f=2), NearestNeighbourMixing(f=2, near="inner_product"), Bucketing(size=2),
           StaticClipping(norm=1.0), ArcClipping(f=2)]
every_mixing = pytest.mark.parametrize("mixing", MIXINGS, ids=lambda mixing: f"{mixing.name}-{getattr(mixing, 'near', '')}")


def rows_of(mixing, x_ND, seed=b"plan", **kwargs):
    return mix(mixing, geometry_of(x_ND, **kwargs), seed).combos_KP @ points_of(x_ND)[0]


def cohort(seed, rows=9):
    return np.random.default_rng(seed).standard_normal((rows, 5)) + 0.3


@pytest.mark.parametrize("mixing", [mixing for mixing in MIXINGS if not isinstance(mixing, Bucketing)], ids=str)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_sites_does_not_matter(mixing, seed):
    x_ND = cohort(seed)
    order = np.random.default_rng(seed + 1).permutation(9)
    assert rows_of(mixing, x_ND[order]) == pytest.approx(rows_of(mixing, x_ND)[order], rel=1e-9, abs=1e-9)


@every_mixing
@pytest.mark.parametrize("x_ND", [np.zeros((9, 5)), np.tile(cohort(1)[0], (9, 1)),
                                  np.vstack([cohort(1)[:8], 3e38 * np.ones((1, 5))])], ids=["zero", "same", "huge"])
def test_combinations_stay_affine_and_finite(mixing, x_ND):
    mixed = mix(mixing, geometry_of(x_ND), b"plan")
    assert np.isfinite(mixed.combos_KP).all()
    assert mixed.combos_KP.sum(axis=1) == pytest.approx(1)
    if (x_ND == x_ND[0]).all() and not isinstance(mixing, StaticClipping):
        assert mixed.combos_KP @ points_of(x_ND)[0] == pytest.approx(x_ND[:len(mixed)])


def test_nearest_neighbours_on_a_line():
    x_ND = np.array([[0.0], [1.0], [5.0], [6.0], [100.0]])
    assert rows_of(NearestNeighbourMixing(f=2), x_ND)[:, 0] == pytest.approx([2.0, 2.0, 4.0, 4.0, 111 / 3])


def test_a_short_liar_is_everybodys_neighbour_by_distance_and_nobodys_by_inner_product():
    generator = np.random.default_rng(2)
    x_ND = 0.1 * generator.standard_normal((12, 2410))                  # noise of length 5, signal of length 1
    x_ND[:, 0] += 1
    x_ND[:3] *= 0.6                                                     # liars shorten theirs, and go the other way
    x_ND[:3, 0] = -1.2
    assert (rows_of(NearestNeighbourMixing(f=3), x_ND)[3:, 0] < 0.6).all()
    assert (rows_of(NearestNeighbourMixing(f=3, near="inner_product"), x_ND)[3:, 0] > 0.9).all()


def test_a_row_is_among_its_own_neighbours_also_when_many_are_the_same():
    x_ND = np.array([[0.0]] * 4 + [[1.0]])
    mixed = mix(NearestNeighbourMixing(f=2), geometry_of(x_ND), b"")
    assert (mixed.combos_KP[:, :5].diagonal() == pytest.approx(1 / 3))


@settings(max_examples=30)
@given(rows=st.integers(1, 30), size=st.integers(1, 12), seed=st.binary(max_size=8))
def test_every_row_is_in_one_bucket_and_the_mean_of_buckets_by_weight_is_the_mean(rows, size, seed):
    x_ND = cohort(rows, rows)
    mixed = mix(Bucketing(size=size), geometry_of(x_ND), seed)
    members = (mixed.combos_KP > 0).sum(axis=1)
    assert (mixed.combos_KP > 0).sum(axis=0)[:rows].tolist() == [1] * rows
    assert sorted(members, reverse=True) == sorted([size] * (rows // size) + [rows % size] * (rows % size > 0), reverse=True)
    assert solve(WeightedMean(), mixed) @ points_of(x_ND)[0] == pytest.approx(x_ND.mean(axis=0), rel=1e-9, abs=1e-12)


def test_the_deal_follows_from_the_seed_and_is_fair():
    assert shuffled(12, b"plan") == shuffled(12, b"plan") != shuffled(12, b"plam")
    assert sorted(shuffled(50, b"x")) == list(range(50))
    deals = Counter(tuple(shuffled(3, bytes([a, b]))) for a in range(20) for b in range(150))
    assert len(deals) == 6
    assert all(abs(count - 500) < 5 * 500 ** 0.5 for count in deals.values())


def test_clipping_keeps_directions_and_caps_norms():
    x_ND = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [-6.0, 8.0]])
    assert rows_of(StaticClipping(norm=1.0), x_ND) == pytest.approx(np.array([[0.6, 0.8], [0.3, 0.4], [0, 0], [-0.6, 0.8]]))
    # f=1 of 4: floor(2*1*3/4) = 1 row is scaled down, to the norm 5 of the next.
    assert rows_of(ArcClipping(f=1), x_ND) == pytest.approx(np.array([[3, 4], [0.3, 0.4], [0, 0], [-3, 4]]))


def test_weights_follow_their_rows():
    x_ND, weight_N = cohort(3, 4), [1.0, 2.0, 3.0, 4.0]
    assert mix(NearestNeighbourMixing(f=1), geometry_of(x_ND, weight_N), b"").weight_K.tolist() == weight_N
    order = shuffled(4, b"s")
    buckets = mix(Bucketing(size=3), geometry_of(x_ND, weight_N), b"s").share_K
    assert buckets[1] == pytest.approx(weight_N[order[3]] / 10)


def test_too_small_a_cohort_is_refused_by_the_theorems_name():
    for mixing in (NearestNeighbourMixing(f=2), ArcClipping(f=2)):
        with pytest.raises(ToleranceError, match="Allouah"):
            mix(mixing, geometry_of(cohort(1, 4)), b"")
