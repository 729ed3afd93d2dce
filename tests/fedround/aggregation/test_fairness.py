"""Weights that follow losses: what they promise, and how little a liar gets."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fedround.aggregation.fairness import fair_weights, nearest_mixture
from fedround.aggregation.rules import CoordinateMedian, GeometricMedian, TrimmedMean, WeightedMean
from fedround.aggregation.spec import Aggregation, Bucketing
from fedround.aggregation.weighing import Agnostic, QFair, Quality
from fedround.errors import ContractError
from fedround.learning.tasks import SMALLEST_LOSS
from fedround.values import parse

NAMES = ("a", "b", "c", "d")
AGREED = st.fixed_dictionaries(dict.fromkeys(NAMES, st.floats(0.1, 10)))
LOSSES = st.fixed_dictionaries(dict.fromkeys(NAMES, st.none() | st.floats(SMALLEST_LOSS, 1)))
KINDS = st.builds(QFair, q=st.floats(0.1, 10), cap=st.floats(1.1, 10)) | st.builds(
    Agnostic, rate=st.floats(0.01, 10), cap=st.floats(1.1, 10))
QUALITY = st.builds(Quality, q=st.floats(0.1, 10), cap=st.floats(1.1, 10))
EQUAL = dict.fromkeys(NAMES, 2.0)


@given(KINDS | QUALITY, AGREED, LOSSES)
def test_weights_sum_to_one_and_stay_near_what_was_agreed_whatever_is_said(fairness, agreed, losses):
    weights, whole, cap = fair_weights(fairness, agreed, losses, {}), sum(agreed.values()), fairness.cap
    assert sum(weights.values()) == pytest.approx(1)
    ratios = [weights[name] * whole / agreed[name] for name in NAMES]
    if isinstance(fairness, Agnostic):
        assert 1 / cap <= min(ratios) * 1.000001
        assert max(ratios) <= cap * 1.000001
    else:
        assert max(ratios) <= cap ** 2 * min(ratios) * 1.000001


@given(KINDS | QUALITY, AGREED, st.floats(SMALLEST_LOSS, 1))
def test_where_all_lose_the_same_the_weights_are_the_agreed_ones(fairness, agreed, same):
    weights = fair_weights(fairness, agreed, dict.fromkeys(NAMES, same), {})
    assert weights == pytest.approx({name: agreed[name] / sum(agreed.values()) for name in NAMES}, rel=1e-6)


@given(KINDS, LOSSES)
def test_who_loses_more_counts_no_less(fairness, losses):
    known = {name: found for name, found in losses.items() if found is not None}
    weights = fair_weights(fairness, EQUAL, losses, {})
    ordered = sorted(known, key=known.__getitem__)
    assert all(weights[less] <= weights[more] * 1.000001 for less, more in itertools.pairwise(ordered))


@given(KINDS, LOSSES, st.floats(SMALLEST_LOSS, 1), st.floats(SMALLEST_LOSS, 1))
def test_a_liar_gains_no_more_than_the_cap(fairness, losses, honest, lie):
    assume(any(losses[name] is not None for name in "bcd"))
    said = [fair_weights(fairness, EQUAL, {**losses, "a": what}, {})["a"] for what in (honest, lie)]
    bound = fairness.cap if isinstance(fairness, Agnostic) else fairness.cap ** 2
    assert max(said) <= 0.25 * bound * 1.000001


@given(QUALITY, AGREED, LOSSES, st.floats(SMALLEST_LOSS, 1), st.sampled_from(NAMES))
def test_by_quality_who_lies_about_its_loss_counts_no_more_than_was_agreed(fairness, agreed, losses, lie, liar):
    """Beside a member at the median, or better, for whom the agreed weight stays as it is; and nobody's falls below 1/cap."""
    weights = fair_weights(fairness, agreed, {**losses, liar: lie}, {})
    of_agreed = {name: weights[name] / agreed[name] for name in NAMES}
    assert of_agreed[liar] <= max(of_agreed.values()) * 1.000001
    assert max(of_agreed.values()) <= fairness.cap * min(of_agreed.values()) * 1.000001
    silent = [name for name in NAMES if name != liar and losses[name] is None]       # at the median by definition
    assert all(of_agreed[liar] <= of_agreed[name] * 1.000001 for name in silent)


@given(KINDS | QUALITY, AGREED, LOSSES, st.floats(0.1, 10))
def test_weights_are_made_anew_when_a_member_joins_or_leaves(fairness, agreed, losses, joins):
    """Who joins has said nothing yet, and counts as agreed beside whoever is at the median; the sum stays one."""
    before = fair_weights(fairness, agreed, losses, {})
    after = fair_weights(fairness, {**agreed, "e": joins}, losses, before)
    assert sum(after.values()) == pytest.approx(1)
    assert fair_weights(fairness, agreed, losses, {}) == before
    if not isinstance(fairness, Agnostic):
        for one, other in itertools.pairwise(NAMES):
            assert after[one] / after[other] == pytest.approx(before[one] / before[other])


def test_quality_is_the_other_way_round_and_raises_nobody():
    losses = {"a": 0.1, "b": 0.2, "c": 0.2, "d": 0.4}
    for q, cap, raw in ((1.0, 10.0, [1, 1, 1, 0.5]), (2.0, 10.0, [1, 1, 1, 0.25]), (2.0, 2.0, [1, 1, 1, 0.5])):
        weights = fair_weights(Quality(q=q, cap=cap), EQUAL, losses, {})
        assert list(weights.values()) == pytest.approx([part / sum(raw) for part in raw])


def test_q_ffl_is_the_qth_power_and_the_cap_cuts_it():
    losses = {"a": 0.1, "b": 0.2, "c": 0.2, "d": 0.4}
    for q, cap, raw in ((1.0, 10.0, [0.5, 1, 1, 2]), (2.0, 10.0, [0.25, 1, 1, 4]), (2.0, 2.0, [0.5, 1, 1, 2])):
        weights = fair_weights(QFair(q=q, cap=cap), EQUAL, losses, {})
        assert list(weights.values()) == pytest.approx([part / sum(raw) for part in raw])


def test_agnostic_weights_climb_to_the_worst_site_and_remember():
    fairness, losses, weights = Agnostic(rate=0.1, cap=3.0), {"a": 0.2, "b": 0.2, "c": 0.2, "d": 0.8}, {}
    seen = []
    for _ in range(20):
        weights = fair_weights(fairness, EQUAL, losses, weights)
        seen.append(weights["d"])
    assert seen[0] == pytest.approx(0.25 + 0.1 * 0.6 * 3 / 4)
    assert seen == sorted(seen)
    assert weights == pytest.approx({"a": 1 / 12, "b": 1 / 12, "c": 1 / 12, "d": 0.75})      # cap 3 allows no more
    assert fair_weights(fairness, EQUAL, {}, weights) == pytest.approx(weights)      # nobody said anything: as before


def test_agnostic_learning_makes_the_worst_site_as_good_as_it_can_be():
    """Mohri et al. 2019: losses (y - b)² at 0, 0 and 1; the mean is best at 1/3, the worst of all mixtures at 1/2."""
    optima = {"a": 0.0, "b": 0.0, "c": 1.0}
    model, weights = 1 / 3, {}
    for _ in range(2000):
        weights = fair_weights(Agnostic(rate=0.02, cap=10.0), dict.fromkeys(optima, 1.0),
                               {name: max((model - best) ** 2, 1e-9) for name, best in optima.items()}, weights)
        model += 0.1 * sum(weight * (optima[name] - model) for name, weight in weights.items())
    assert model == pytest.approx(0.5, abs=0.03)


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=6))
def test_the_nearest_mixture_is_nearer_than_any_other(point):
    """Against a thousand drawn ones, and the conditions of the optimum."""
    n = len(point)
    point_N, low_N, high_N = np.array(point), np.full(n, 0.3 / n), np.full(n, min(1.0, 2.0 / n))
    found_N = nearest_mixture(point_N, low_N, high_N)
    assert found_N.sum() == pytest.approx(1, abs=1e-9)
    assert (found_N >= low_N).all()
    assert (found_N <= high_N).all()
    draws = np.random.default_rng(0).dirichlet(np.ones(n), 1000)
    allowed = draws[((draws >= low_N) & (draws <= high_N)).all(axis=1)]
    assert (np.square(allowed - point_N).sum(axis=1) >= np.square(found_N - point_N).sum() - 1e-9).all()


@pytest.mark.parametrize("parts", [
    {"rule": TrimmedMean(f=1)}, {"rule": CoordinateMedian()}, {"rule": WeightedMean(), "mixing": (Bucketing(size=2),)},
    {"rule": GeometricMedian(), "mixing": (Bucketing(size=2),)}], ids=str)
def test_a_rule_that_counts_every_site_the_same_is_refused(parts):
    with pytest.raises(ValueError, match="counts every site the same"):
        Aggregation(**parts, fairness=QFair(q=1.0, cap=2.0))


def test_in_a_file():
    rule = {"rule": {"name": "weighted_mean"}}
    assert str(parse(Aggregation, {**rule, "fairness": {"name": "afl", "rate": 0.1, "cap": 3.0}}, "file")) == (
        "weighted_mean, weighted by afl(rate=0.1, cap=3.0)")
    for cap in (1.0, 0.5):
        with pytest.raises(ContractError, match="cap"):
            parse(Aggregation, {**rule, "fairness": {"name": "q_ffl", "q": 1.0, "cap": cap}}, "file")
