"""The axioms of Shapley's value, to 1e-12, against a twin that goes through every order."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedround.contribution.shapley import MOST_EXACT, Exact, Floats, Game, Sampled, game

WORTH = st.floats(-1, 1)
SEED = np.random.SeedSequence(7)


def by_orders(players: int, value_C: Floats) -> Floats:
    """What each player adds to those before it, averaged over all orders: two plain loops."""
    share_N = np.zeros(players)
    for order in itertools.permutations(range(players)):
        there = 0
        for player in order:
            share_N[player] += value_C[there | 1 << player] - value_C[there]
            there |= 1 << player
    return share_N / math.factorial(players)


def worths(players: int) -> st.SearchStrategy[Floats]:
    return arrays(np.float64, 1 << players, elements=WORTH)


GAMES = st.integers(1, 6).flatmap(lambda players: st.tuples(st.just(players), worths(players)))


@settings(max_examples=60)
@given(GAMES)
def test_it_is_the_mean_over_all_orders_and_adds_up_to_the_whole(case: tuple[int, Floats]):
    players, value_C = case
    share_N = Exact(players).split(value_C)
    assert np.abs(share_N - by_orders(players, value_C)).max() < 1e-12
    assert share_N.sum() == pytest.approx(value_C[-1] - value_C[0], abs=1e-12)


@settings(max_examples=40)
@given(GAMES, st.data())
def test_who_adds_nothing_gets_nothing_and_equals_get_the_same(case: tuple[int, Floats], data: st.DataObject):
    players, value_C = case
    idle = data.draw(st.integers(0, players - 1))
    there = np.arange(1 << players)
    assert abs(Exact(players).split(value_C[there & ~(1 << idle)])[idle]) < 1e-12
    if players > 1:
        twin = (idle + 1) % players
        without = there & ~(1 << idle | 1 << twin)
        both = (there >> idle & 1) + (there >> twin & 1)
        share_N = Exact(players).split(value_C[without] + both * value_C[-1])
        assert share_N[idle] == pytest.approx(share_N[twin], abs=1e-12)


@settings(max_examples=40)
@given(st.integers(1, 5).flatmap(lambda players: st.tuples(st.just(players), worths(players), worths(players))), WORTH)
def test_the_shares_of_a_sum_are_the_sums_of_the_shares(case: tuple[int, Floats, Floats], by: float):
    players, one_C, other_C = case
    split = Exact(players).split
    assert np.abs(split(one_C + by * other_C) - (split(one_C) + by * split(other_C))).max() < 1e-12


def test_twelve_players_are_valued_whole_and_each_coalition_once():
    rules = game(MOST_EXACT, SEED)
    assert isinstance(rules, Exact)
    members_CN = rules.coalitions_CN
    assert members_CN.shape == (4096, 12)
    assert len(np.unique(members_CN, axis=0)) == 4096
    weight_N = np.random.default_rng(0).normal(size=12)
    value_C = members_CN @ weight_N + np.tanh(members_CN.sum(axis=1))
    assert np.abs(rules.split(value_C) - weight_N - math.tanh(12) / 12).max() < 1e-12


# -- drawn orders ------------------------------------------------------------------------------------------------------


def curved(rules: Game, weight_N: Floats) -> Floats:
    """A game with diminishing returns."""
    return np.sqrt(rules.coalitions_CN @ weight_N)


def test_drawn_orders_add_up_too_and_give_a_null_player_nothing():
    weight_N = np.arange(15, dtype=np.float64)
    rules = game(15, SEED)
    assert isinstance(rules, Sampled)
    members_CN, value_C = rules.coalitions_CN, curved(rules, weight_N)
    assert not members_CN[0].any()
    assert members_CN[-1].all()
    assert len(np.unique(members_CN, axis=0)) == len(members_CN) <= 4096 + 2 * 15
    share_N = rules.split(value_C)
    assert share_N.sum() == pytest.approx(value_C[-1], abs=1e-12)
    assert share_N[0] == 0
    assert rules.spread(value_C)[0] == 0


def test_their_interval_holds():
    """Of 8 players, for whom the truth is known. 95 of 100 cases; at least 85 of 100 are asked for."""
    weight_N, held = np.array([1.0, 1, 2, 3, 5, 8, 13, 21]), []
    truth_N = Exact(8).split(curved(Exact(8), weight_N))
    for seed in range(60):
        rules = Sampled(8, 20, np.random.default_rng(seed))
        value_C = curved(rules, weight_N)
        held.append(np.abs(rules.split(value_C) - truth_N) <= 2.1 * rules.spread(value_C))
    assert 0.85 < np.mean(held) < 1

