"""A coin over a label costs what it says, in every unit that it is about, and beside all else that is paid."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.errors import ContractError
from fedround.privacy.accounting import Batch, epsilon, epsilon_of_batches
from fedround.privacy.noise import stream
from fedround.privacy.quick import epsilon_at_most
from fedround.privacy.spec import DpSgd, GaussianCounts, GaussianUpdate, NoMechanism, RandomisedLabels, RowSum
from fedround.privacy.units import dearest, noise_of_one, released
from fedround.vertical.labels import UNTOLD, flip_chance, told

COINS = RandomisedLabels(epsilon=2.0)
COUNTS = GaussianCounts(noise_std=5.0)
DELTA = 1e-5


def noise(seed: int = 0):
    return stream(bytes(32), b"%d" % seed)


@given(st.floats(0.01, 20))
def test_no_label_is_told_with_more_than_the_ratio_that_was_paid(paid):
    chance = flip_chance(paid)
    cells = math.ceil(chance * 2 ** 53)         # a uniform multiple of 2**-53 is below the chance in so many cells
    assert (2 ** 53 - cells) / cells <= math.exp(paid)
    assert chance <= 0.5


def test_a_coin_is_as_often_wrong_as_it_says():
    label_N = np.tile(np.array([0, 1], np.int8), 50_000)
    for paid in (1.0, 2.0, 4.0):
        wrong, chance = float((told(label_N, paid, noise()) != label_N).mean()), 1 / (1 + math.exp(paid))
        assert abs(wrong - chance) < 5 * math.sqrt(chance / len(label_N))


def test_a_label_that_is_held_back_is_not_told_and_a_retry_repeats():
    label_N = np.array([0, UNTOLD, 1, UNTOLD], np.int8)
    first = told(label_N, 1.0, noise(4))
    assert (first == told(label_N, 1.0, noise(4))).all()
    assert (first == UNTOLD).tolist() == [False, True, False, True]
    with pytest.raises(ContractError, match="0 or 1"):
        told(np.array([2], np.int8), 1.0, noise())


def test_attack_whoever_reads_coins_guesses_labels_no_better_than_was_paid():
    """The best guess, with the base rate known, is right as often as the bound says, and no more."""
    generator = np.random.default_rng(1)
    label_N = (generator.random(40_000) < 0.5).astype(np.int8)
    for paid in (0.5, 1.0, 2.0):
        right = float((told(label_N, paid, noise(7)) == label_N).mean())
        bound = math.exp(paid) / (1 + math.exp(paid))
        assert bound - 0.02 < right < bound + 0.01


def test_coins_cost_their_epsilon_without_a_delta_and_add_up_with_all_else():
    for unit in ("record", "label"):
        assert epsilon([COINS], DELTA, unit) == 2.0
        assert epsilon([COINS, COINS], DELTA, unit) == 4.0
        together = epsilon([COINS, COUNTS], DELTA, unit)
        assert together == pytest.approx(2.0 + epsilon([COUNTS], DELTA, unit), abs=2e-6)
        later = epsilon_of_batches([Batch(((COUNTS, 1),)), Batch(((COINS, 1),))], DELTA, unit)
        assert later == pytest.approx(together, abs=2e-6)
    for unit in ("person", "site"):
        assert math.isinf(epsilon([COINS], DELTA, unit)), "nobody counted whose rows they are"
    assert math.isinf(epsilon([COINS] * 300, DELTA))


def test_nothing_of_coins_is_given_back():
    asked = [Batch(((COUNTS, 1),)), Batch(((COINS, 3),), unused=((COINS, 2),))]
    assert epsilon_of_batches(asked, DELTA, "label") == pytest.approx(6 + epsilon([COUNTS], DELTA, "label"), abs=2e-6)


def test_the_gaussian_in_its_place_dominates_a_coin_at_every_epsilon():
    from statistics import NormalDist

    for paid in (0.1, 1.0, 3.0, 8.0):
        mu = 1 / released(RandomisedLabels(epsilon=paid), "record").noise_multiplier
        cdf = NormalDist().cdf
        for eps in np.linspace(0, paid, 12):
            exact = max(0.0, (math.exp(paid) - math.exp(eps)) / (1 + math.exp(paid)))
            gaussian = cdf(mu / 2 - eps / mu) - math.exp(eps) * cdf(-mu / 2 - eps / mu)
            assert gaussian >= exact - 1e-9
    assert epsilon_at_most([(COINS, 1)], DELTA, "record") >= 2.0
    assert noise_of_one(COINS) > 0
    assert epsilon(dearest([(COINS,)]), DELTA) >= 2.0
    of_persons = DpSgd(noise_multiplier=1.0, clip_norm=1.0, sampling_rate=0.01, steps=10, rows_per_person=5)
    assert math.isinf(epsilon(dearest([(COINS,), (of_persons,)]), DELTA, "person")), "coins bound nothing for a person"


@pytest.mark.parametrize("mechanism", [
    COUNTS, DpSgd(noise_multiplier=1.0, clip_norm=1.0, sampling_rate=0.1, steps=20), RowSum(noise_multiplier=3.0),
    GaussianUpdate(noise_multiplier=5.0, clip_norm=1.0)])
def test_elsewhere_a_label_costs_what_its_record_costs_when_it_is_exchanged(mechanism):
    assert epsilon([mechanism], DELTA, "label") > epsilon([mechanism], DELTA, "record")


def test_what_has_no_noise_has_no_bound_for_a_label():
    assert math.isinf(epsilon([NoMechanism()], DELTA, "label"))
