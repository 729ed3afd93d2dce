"""Whom the gate leaves out, and whom it must not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedround.aggregation.gate import admit, audible, chance, norm_bounds, pair_bounds
from fedround.aggregation.noise_law import NoiseLaw
from fedround.aggregation.spec import Gate
from fedround.aggregation.verdict import Verdict
from fedround.errors import ToleranceError
from tests.geometries import geometry_of

D, N, F = 2410, 12, 3
LAW = NoiseLaw(signal_bound=1.0, variance=0.01)         # clip to 1, noise multiplier 0.1: noise of length 4.9
USED, GATE, NOISE = Verdict.USED, Verdict.GATE, Verdict.NOISE


def honest(seed, laws=(LAW,) * N, coordinates=D):
    """Signals as long as they may be, in one direction: the pair bound has no slack."""
    generator = np.random.default_rng(seed)
    x_ND = np.array([law.std * generator.standard_normal(coordinates) for law in laws])
    x_ND[:, 0] += [law.signal_bound for law in laws]
    return x_ND


def judged(x_ND, laws=(LAW,) * N, f=F, sigmas=4.0):
    return admit(Gate(f=f, sigmas=sigmas), geometry_of(x_ND), list(laws), x_ND.shape[1])


def left_out(admission):
    return [row for row, verdict in enumerate(admission.verdicts) if verdict is not USED]


# -- the honest stay ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("coordinates", "noise", "rounds"), [(10, 0.5, 100), (D, 0.1, 40), (100_000, 0.05, 3)])
def test_nobody_honest_is_left_out(coordinates, noise, rounds):
    laws = (NoiseLaw(1.0, noise**2),) * N
    for seed in range(rounds):
        admission = judged(honest(seed, laws, coordinates), laws)
        assert left_out(admission) == []
        assert admission.liars == 0
        assert admission.judged


def test_every_site_is_judged_by_its_own_law():
    laws = [NoiseLaw(1.0, std**2) for std in np.linspace(0.05, 0.5, N)]
    assert left_out(judged(honest(1, laws), laws)) == []
    swapped = [laws[1], laws[0], *laws[2:-2], laws[-1], laws[-2]]
    wrong = judged(honest(1, laws), swapped, f=4)
    assert wrong.verdicts[:2] == (NOISE, GATE)          # a smaller law than declared, and a larger one


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_sites_does_not_matter(seed):
    x_ND = honest(seed)
    x_ND[:3, 1:200] += 0.2                                                      # three that go together
    x_ND[4] *= 3
    order = np.random.default_rng(seed).permutation(N)
    one, other = judged(x_ND, f=4), judged(x_ND[order], f=4)
    assert other.verdicts == tuple(one.verdicts[row] for row in order)
    assert other.liars == one.liars


# -- the bounds --------------------------------------------------------------------------------------------------------


def test_bounds_are_the_formulas():
    law, other = NoiseLaw(2.0, 0.09), NoiseLaw(0.5, 4.0)
    shortest, longest = norm_bounds(law, 1000, 4.0)
    assert shortest == pytest.approx(0.3 * math.sqrt(1000 - 4 * math.sqrt(2000)) - 2)
    assert longest == pytest.approx(0.3 * math.sqrt(1000 + 4 * math.sqrt(2000) + 16) + 2)
    expected = 2.0 * 0.5 + 4 * math.sqrt(0.09 * 0.25 + 4.0 * 4.0 + 0.09 * 4.0 * 1000) + 0.3 * 2.0 * 8
    bounds_KK = pair_bounds([law, other], 1000, 4.0)
    assert bounds_KK[0, 1] == bounds_KK[1, 0] == pytest.approx(expected)


@pytest.mark.parametrize("coordinates", [10, 1000])
def test_the_pair_bound_fails_as_rarely_as_promised_and_is_not_idle(coordinates):
    """At 3 sigmas and without signal, 66 pairs in each of 400 rounds: exp(-9/2) is 1.1 %."""
    generator = np.random.default_rng(3)
    above_KK = np.triu(pair_bounds([NoiseLaw(0.0, 1.0)] * N, coordinates, 3.0), 1)
    broken = near = 0
    for _ in range(400):
        x_ND = generator.standard_normal((N, coordinates))
        products_KK = np.abs(np.triu(x_ND @ x_ND.T, 1))
        broken += (products_KK > above_KK).sum()
        near += (products_KK > 0.5 * above_KK).sum()
    assert broken <= 2 * math.exp(-4.5) * 400 * 66
    assert near > 0.02 * 400 * 66


# -- the noise audit ---------------------------------------------------------------------------------------------------


def test_a_site_that_forgot_its_noise_is_left_out_as_such():
    x_ND = honest(4)
    x_ND[5] = 0
    x_ND[5, 0] = 1.0
    admission = judged(x_ND)
    assert left_out(admission) == [5]
    assert admission.verdicts[5] is NOISE
    assert admission.reasons[5].startswith("too short for its declared noise: 1, at least 3.6")
    assert (admission.liars, admission.note, admission.judged) == (1, "", True)


def test_a_site_with_a_tenth_of_its_noise_is_left_out_as_such():
    x_ND = honest(5)
    x_ND[2] = honest(6, [NoiseLaw(1.0, LAW.variance / 100)] * N)[2]
    assert judged(x_ND).verdicts[2] is NOISE


def test_a_site_that_is_too_long_is_left_out():
    x_ND = honest(7)
    x_ND[0] *= 10
    admission = judged(x_ND)
    assert (left_out(admission), admission.verdicts[0]) == ([0], GATE)
    assert "too long" in admission.reasons[0]


def test_where_the_noise_cannot_be_heard_the_gate_says_so():
    soft = NoiseLaw(signal_bound=10.0, variance=0.01)
    assert audible(LAW, D, 4.0)
    assert not audible(soft, D, 4.0)
    x_ND = honest(8)
    assert "the noise of 12 of 12 updates is soft" in judged(x_ND, [soft] * N).note


# -- sites without a law -----------------------------------------------------------------------------------------------


def test_without_any_law_everybody_stays_and_it_is_said():
    x_ND = honest(9)
    x_ND[0] *= 1e9
    admission = judged(x_ND, [None] * N)
    assert (left_out(admission), admission.liars, admission.judged) == ([], 0, False)
    assert admission.note == "no site declared the law of its noise: nobody was judged"


def test_who_declares_no_law_where_others_do_is_left_out():
    """Otherwise a liar would escape the gate by declaring nothing."""
    admission = judged(honest(10), [None, *[LAW] * (N - 1)])
    assert (left_out(admission), admission.verdicts[0]) == ([0], NOISE)


def test_one_law_among_many_does_not_leave_out_the_many():
    admission = judged(honest(11), [LAW, *[None] * (N - 1)])
    assert (left_out(admission), admission.liars, admission.judged) == ([], 0, False)
    assert admission.note.startswith("11 of 12 updates do not fit")
    assert admission.reasons[1:] == ("declares no law of its noise",) * (N - 1)


# -- colluders ---------------------------------------------------------------------------------------------------------


def colluding(seed, liars, along):
    """Liars as long as everybody, whose noise is like everybody's but for a push in common."""
    x_ND = honest(seed)
    x_ND[:liars, along] = -4.0
    x_ND[:liars] *= 4.9 / np.linalg.norm(x_ND[:liars], axis=1, keepdims=True)
    return x_ND


def test_colluders_hidden_in_noise_go_in_pairs():
    """Each is as near to the honest as they are to each other: no rule of distances sees them."""
    for seed in range(10):
        admission = judged(colluding(seed, 2, along=1))
        assert (left_out(admission), admission.liars) == ([0, 1], 1)
        admission = judged(colluding(seed, 3, along=1))
        assert set(left_out(admission)) < {0, 1, 2}
        assert (len(left_out(admission)), admission.liars) == (2, 1)


def test_colluders_who_go_against_the_honest_surely_lie():
    x_ND = colluding(1, 3, along=0)
    x_ND[:3, 0] = -4.5
    admission = judged(x_ND)
    assert (left_out(admission), admission.liars) == ([0, 1, 2], 3)
    assert "and without it too few may lie to explain that" in admission.reasons[0]


def test_copies_of_one_upload_go_in_pairs():
    x_ND = honest(12)
    x_ND[[0, 1, 2]] = x_ND[7]                              # mimic: three copy an honest site
    admission = judged(x_ND)
    assert left_out(admission) == [0, 1, 2, 7]
    assert admission.liars == 2


def test_a_row_against_more_than_f_others_surely_lies():
    x_ND = honest(13)
    x_ND[0] = 0.6 * x_ND[0] - 0.4 * x_ND[4:8].sum(axis=0)
    admission = judged(x_ND)
    assert (left_out(admission), admission.liars) == ([0], 1)
    assert "4 others" in admission.reasons[0]


def test_a_liar_who_frames_an_honest_site_goes_with_it():
    """Three liars each come into conflict with another honest site. Leaving out one of each pair could leave out the honest
    three, and keep three liars among nine; so both go, and f shrinks by three: six honest rows remain, and no liar."""
    x_ND = honest(14)
    for liar, victim in enumerate((6, 7, 8)):
        noise_D = x_ND[liar] - 0.5 * x_ND[victim]
        x_ND[liar] += 0.5 * x_ND[victim] - 0.3 * noise_D
    admission = judged(x_ND)
    assert left_out(admission) == [0, 1, 2, 6, 7, 8]
    assert admission.liars == 3
    assert all("one of the two lies" in admission.reasons[row] for row in left_out(admission))


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), liars=st.integers(0, F), data=st.data())
def test_the_share_of_liars_never_grows(seed, liars, data):
    """Whatever f liars do, with honest rows inside their bounds: N - 2f <= rows left, and liars left <= f - `liars`."""
    x_ND = honest(seed)
    for liar in range(liars):
        shares = data.draw(st.lists(st.sampled_from([0, 0, 0, 0.3, -0.3, 1.0]), min_size=N, max_size=N))
        x_ND[liar] = data.draw(st.sampled_from([0, 0.7, 1.0])) * x_ND[liar] + np.array(shares) @ x_ND
    if left_out(judged(x_ND[liars:], [LAW] * (N - liars), f=1)):
        return                                             # an honest pair beyond its bound: one in a thousand rounds
    admission = judged(x_ND)
    gone = left_out(admission)
    liars_left = liars - sum(row < liars for row in gone)
    assert liars_left <= F - admission.liars
    assert len(gone) <= 2 * admission.liars
    assert admission.liars <= liars
    assert admission.judged


def test_where_no_f_liars_explain_the_pairs_nobody_is_left_out_for_them():
    x_ND = honest(15)
    x_ND[:, 0] += 10                                       # everybody goes the same way: a wrong law, not twelve liars
    admission = judged(x_ND, [NoiseLaw(1.0, LAW.variance * 2)] * N, sigmas=10.0)
    assert left_out(admission) == []
    x_ND[:, 0] -= 8
    laws = [NoiseLaw(0.1, LAW.variance)] * N
    admission = judged(x_ND, laws)
    assert (left_out(admission), admission.liars) == ([], 0)
    assert "the declared laws are wrong" in admission.note


def test_too_small_a_cohort_is_refused():
    with pytest.raises(ToleranceError, match="the gate trusts a majority"):
        judged(honest(16)[:6], [LAW] * 6)


def test_chance_alone_leaves_an_honest_site_out_of_at_most_one_round_in_a_hundred_of_twelve_sites():
    assert chance(Gate(f=2), 12) == pytest.approx(24 * math.exp(-8))
    assert chance(Gate(f=2), 12) < 0.01
    assert chance(Gate(f=2, sigmas=3.0), 1000) == 1.0
