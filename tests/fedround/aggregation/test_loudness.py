"""Whatever a site declares, it never counts more for it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedround.aggregation.engine import ArrayNumbers, Row, Verdict, aggregate
from fedround.aggregation.loudness import calmed, observed, units
from fedround.aggregation.noise_law import NoiseLaw
from fedround.aggregation.rules import WeightedMean
from fedround.aggregation.spec import Gate, default_aggregation
from tests.geometries import geometry_of

D, N, F = 2000, 12, 2
WEIGHTS = [3640.0, 3120.0, 2640.0, 2160.0, 1680.0, 1280.0, 1000.0, 760.0, 600.0, 440.0, 360.0, 320.0]
LAWS = tuple(NoiseLaw(22.0, (100.0 / weight) ** 2) for weight in WEIGHTS)      # calibrated alike: weight x noise is 100


def uploads(seed, laws=LAWS, signal=1.0):
    generator = np.random.default_rng(seed)
    x_ND = np.array([law.std * generator.standard_normal(D) for law in laws])
    x_ND[:, 0] += signal
    return x_ND


def result(x_ND, laws=LAWS, how=None):
    how = how or default_aggregation(9, noise_is_declared=True, rounds=20)
    rows = [Row(f"site-{n:02d}", WEIGHTS[n], ArrayNumbers(x_ND[n].astype(np.float32)), laws[n]) for n in range(N)]
    return aggregate(rows, how, D)


# -- loudness ------------------------------------------------------------------------------------------------------------


def test_sites_whose_noise_was_calibrated_alike_stay_as_they_are():
    calm = calmed(Gate(f=F), geometry_of(uploads(0), WEIGHTS), LAWS)
    assert (calm.laws, calm.reasons) == (LAWS, {})


@settings(max_examples=30)
@given(louder=st.floats(1, 1e6), site=st.integers(0, N - 1))
def test_a_louder_declaration_never_counts_more_than_the_most_that_is_allowed(louder, site):
    laws = list(LAWS)
    laws[site] = NoiseLaw(22.0, LAWS[site].variance * louder ** 2)
    calm = calmed(Gate(f=F), geometry_of(uploads(0), WEIGHTS), laws)
    loudness = [weight * law.std for weight, law in zip(WEIGHTS, calm.laws, strict=True)]
    assert max(loudness) <= 1.5 * 100 * (1 + 1e-9)
    assert (site in calm.reasons) == (louder > 1.5 * (1 + 1e-9))
    assert np.count_nonzero(calm.geometry.combos_KP[site, :N]) == 1


@pytest.mark.parametrize("liars", [(11,), (0, 1)], ids=["the smallest site", "the two largest"])
def test_who_declares_a_hundred_times_the_noise_moves_the_result_no_farther_than_honest_noise(liars):
    """Before, one such site took the digits from 91.5 % to 32.8 %, and the smallest bank alone took the AUC to 0.66."""
    x_ND, laws = uploads(1), list(LAWS)
    honest = result(x_ND)
    for site in liars:
        laws[site] = NoiseLaw(22.0, LAWS[site].variance * 1e4)
        x_ND[site] *= 100
    attacked = result(x_ND, laws)
    noise = np.linalg.norm(honest.delta_D[1:])
    assert np.linalg.norm(attacked.delta_D - honest.delta_D) < 2 * noise
    assert all("scaled down to 1.5" in attacked.standings[f"site-{site:02d}"].reason for site in liars)
    loose = result(x_ND, laws, Gate(f=F, loudest=100.0, slack=100.0) >> WeightedMean())
    assert np.linalg.norm(loose.delta_D - honest.delta_D) > 5 * noise           # what it would have been


@settings(max_examples=30)
@given(quieter=st.floats(1e-6, 1), site=st.integers(0, N - 1))
def test_a_quieter_declaration_never_makes_a_site_nearer_than_the_middle_site(quieter, site):
    laws = list(LAWS)
    laws[site] = NoiseLaw(22.0, LAWS[site].variance * quieter ** 2)
    assert units(geometry_of(uploads(0), WEIGHTS), laws) == pytest.approx([law.std for law in LAWS], rel=1e-9)


def test_who_declares_more_noise_is_measured_by_it():
    laws = [NoiseLaw(22.0, 4 * LAWS[0].variance), *LAWS[1:]]
    assert units(geometry_of(uploads(0), WEIGHTS), laws)[0] == pytest.approx(2 * LAWS[0].std, rel=1e-9)


def test_without_every_law_there_are_no_units():
    assert units(geometry_of(uploads(0), WEIGHTS), (None, *LAWS[1:])) is None


@pytest.mark.parametrize("liars", [(0, 1), (10, 11)], ids=["the two largest", "the two smallest"])
def test_who_declares_a_hundredth_of_the_noise_gains_nothing_beside_its_honest_declaration(liars):
    """Measured in units of its own noise, such a site was everybody's nearest neighbour, whatever it pushed for."""
    push_D = np.random.default_rng(3).standard_normal(D)
    push_D /= np.linalg.norm(push_D)

    def influence(times):
        found = []
        for seed in range(8):
            x_ND, laws = uploads(seed), list(LAWS)
            for site in liars:
                laws[site] = NoiseLaw(22.0, LAWS[site].variance * times ** 2)
                x_ND[site] = push_D + laws[site].std * np.random.default_rng([8, seed, site]).standard_normal(D)
            standings = result(x_ND, laws).standings
            found.append(sum(standings[f"site-{site:02d}"].influence for site in liars))
        return float(np.mean(found))

    share = sum(WEIGHTS[site] for site in liars) / sum(WEIGHTS)
    assert influence(0.01) < influence(1.0) + share / 4


# -- signal --------------------------------------------------------------------------------------------------------------


def bound_of(x_ND, laws=LAWS, gate=None):
    known = dict(enumerate(laws))
    return {row: law.signal_bound for row, law in observed(gate or Gate(f=F), geometry_of(x_ND, WEIGHTS), known, D).items()}


def test_the_signal_bound_is_what_the_cohort_shows_and_not_what_clipping_allows():
    for seed in range(5):
        bounds = set(bound_of(uploads(seed)).values())
        assert len(bounds) == 1
        assert 0.9 <= bounds.pop() <= 2.0                                       # declared: 22


def test_a_smaller_declaration_stays():
    laws = [*LAWS[:-1], NoiseLaw(0.01, LAWS[-1].variance)]
    assert bound_of(uploads(3), laws)[N - 1] == 0.01


@settings(max_examples=40)
@given(seed=st.integers(0, 99), lengths=st.lists(st.floats(0, 1e3), min_size=F, max_size=F),
       sites=st.lists(st.integers(0, N - 1), min_size=F, max_size=F, unique=True))
def test_liars_neither_raise_it_above_the_largest_honest_signal_nor_lower_it_below_the_third_smallest(seed, lengths, sites):
    generator = np.random.default_rng(seed)
    x_ND = np.zeros((N, D))
    signals = generator.uniform(0.5, 3.0, N)
    x_ND[:, 0] = signals
    laws = [NoiseLaw(22.0, 1e-12)] * N                                          # so quiet that energies are the signals'
    for site, length in zip(sites, lengths, strict=True):
        x_ND[site, 0] = length
    honest = sorted(signals[row] for row in range(2 * F + 3) if row not in sites)      # of the seven that are looked at
    bound = bound_of(x_ND, laws)[next(row for row in range(N) if row not in sites)] / 1.25
    assert honest[2] * (1 - 1e-6) <= bound <= honest[-1] * (1 + 1e-6)


def test_too_few_laws_leave_the_declared_bounds():
    known = dict(enumerate(LAWS[:2 * F + 2]))
    assert observed(Gate(f=F), geometry_of(uploads(4), WEIGHTS), known, D) == known


def test_a_liar_that_hides_below_the_clip_norm_is_found():
    """Twenty times as long as anybody's signal, and still within what clipping allows: the gate was deaf to it."""
    x_ND = uploads(5)
    direction_D = np.random.default_rng(6).standard_normal(D)
    for site in (0, 1):
        x_ND[site] = 20 * direction_D / math.sqrt(D) + LAWS[site].std * np.random.default_rng([7, site]).standard_normal(D)
    found = result(x_ND)
    assert [site for site, one in found.standings.items() if one.verdict is not Verdict.USED] == ["site-00", "site-01"]
    assert "too long for its declared noise" in found.standings["site-00"].reason


def test_nobody_honest_is_left_out_of_unequal_sites():
    for seed in range(30):
        found = result(uploads(seed, signal=float(np.random.default_rng(seed).uniform(0, 2))))
        assert all(one.verdict is Verdict.USED and one.reason == "" for one in found.standings.values())
