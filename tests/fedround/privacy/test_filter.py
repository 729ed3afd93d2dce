"""The ledger is a filter: whoever chooses what to ask next by what was released before gets no more than the bound says."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution

from fedround.errors import BudgetError
from fedround.privacy import accounting, envelope
from fedround.privacy.accounting import Batch, epsilon, epsilon_of_batches
from fedround.privacy.entries import Charge, Closing, Lot, Shared
from fedround.privacy.ledger import Bound, add, charge, create, held, read, spent
from fedround.privacy.spec import DpSgd, GaussianCounts, GaussianUpdate

DELTA = 1e-5
A, B = GaussianCounts(noise_std=4.0), DpSgd(noise_multiplier=0.2886, clip_norm=1.0, sampling_rate=1e-4, steps=1)
RELEASES = 20
CELL, LOSSES = 0.01, (-10.0, 14.0)
BANK = DpSgd(noise_multiplier=3.095, clip_norm=1.0, sampling_rate=256 / 1200, steps=10)
"""A bank of 1,200 rows in one of its 20 rounds."""


# -- the attack --------------------------------------------------------------------------------------------------------


@functools.cache
def losses(mechanism) -> tuple[int, np.ndarray, float]:
    """The privacy loss of one release: its first cell, the chances of the cells, the chance of losing everything."""
    noise, rate = (mechanism.noise_std, 1.0) if mechanism == A else (mechanism.noise_multiplier, mechanism.sampling_rate)
    found = privacy_loss_distribution.from_gaussian_mechanism(
        noise, sampling_prob=rate, value_discretization_interval=CELL)._pmf_remove.to_dense_pmf()
    return found._lower_loss, np.asarray(found._probs), found._infinity_mass


def adaptive_optimum(eps: float, allowed) -> float:
    """The delta that the best strategy reaches at `eps`, which sees the loss so far and then takes A, B or nothing.

    allowed: whether a number of As and Bs may be taken in this order (the first one decides what the others cost).
    """
    grid = np.arange(round(LOSSES[0] / CELL), round(LOSSES[1] / CELL) + 1)

    def after(value_L: np.ndarray, mechanism) -> np.ndarray:
        lower, chance, everything = losses(mechanism)
        reached = np.maximum(0.0, 1 - np.exp(eps - np.arange(grid[0] + lower, grid[-1] + lower + len(chance)) * CELL))
        reached[-lower:-lower + len(grid)] = value_L
        return np.correlate(reached, chance, "valid")[:len(grid)] + everything

    @functools.cache
    def value(taken: tuple) -> np.ndarray:
        best_L = np.maximum(0.0, 1 - np.exp(eps - grid * CELL))
        if sum(taken[1:]) == RELEASES:
            return best_L
        for mechanism in (A, B):
            first, of_a, of_b = taken
            more = (first or ("A" if mechanism == A else "B"), of_a + (mechanism == A), of_b + (mechanism == B))
            if allowed(*more):
                best_L = np.maximum(best_L, after(value(more), mechanism))
        return best_L

    return float(value((None, 0, 0))[-grid[0]])


def test_attack_composed_plds_are_no_filter():
    """Every mixture of twenty As and Bs costs at most 4.984; chosen by what was seen, delta there is twice what was said."""
    bound = 4.984
    assert max(epsilon([A] * (RELEASES - some) + [B] * some, DELTA) for some in (0, 1, 3, 8, 15, 20)) <= bound
    assert adaptive_optimum(bound, lambda *_: True) > 2e-5


def test_attack_what_the_ledger_lets_through_reaches_no_more_than_it_says():
    """The same strategies, of which the ledger now refuses those that cost more than the bound."""
    bound = 5.0

    def allowed(first: str, of_a: int, of_b: int) -> bool:
        rest = [A] * (of_a - (first == "A")) + [B] * (of_b - (first == "B"))
        batches = [Batch((({"A": A, "B": B}[first], 1),)), *(Batch(((one, 1),)) for one in rest)]
        return epsilon_of_batches(batches, DELTA) <= bound

    assert allowed("A", 20, 0)
    reached = adaptive_optimum(bound, allowed)
    assert 0.8 * DELTA < reached <= DELTA


def test_the_charged_bound_of_the_attack_is_above_the_adaptive_optimum():
    """Epsilon 5.53 at 1e-5 is what the best strategy reaches: its dearest path is charged more than that."""
    assert adaptive_optimum(5.53, lambda *_: True) == pytest.approx(DELTA, rel=0.06)
    with_one_b = [Batch(((A, 1),))] * 19 + [Batch(((B, 1),))]
    assert epsilon_of_batches(with_one_b, DELTA) > 5.53


# -- envelopes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", [BANK, B, DpSgd(noise_multiplier=0.9, clip_norm=1.0, sampling_rate=0.1, steps=60)])
def test_a_dominating_gaussian_lies_above_and_a_dominated_one_below(mechanism):
    """Against an accountant with another discretisation, at places between the grid's."""
    asked = accounting._form([(mechanism, 1)], "record")[0]
    tail, mu2 = 1e-7, accounting._dominating(asked, 1e-7)
    low2 = accounting._dominated(asked)
    assert low2 < mu2
    assert mechanism == B or low2 > 0       # adding a record shows nearly nothing of a rare draw
    one = privacy_loss_distribution.from_gaussian_mechanism(
        mechanism.noise_multiplier, sampling_prob=mechanism.sampling_rate, value_discretization_interval=1e-3)
    exact = one.self_compose(mechanism.steps) if mechanism.steps > 1 else one
    for eps in (0.0, 0.0103, 0.173, 0.911, 2.17, 4.3, 7.77):
        delta = exact.get_delta_for_epsilon(eps)
        assert delta <= (accounting.gaussian_delta(eps, math.sqrt(mu2)) + tail) * (1 + 1e-6)
        assert low2 == 0 or accounting.gaussian_delta(eps, math.sqrt(low2)) <= delta * (1 + 2e-3) + 1e-12


def test_a_gaussians_envelopes_are_itself():
    whole = privacy_loss_distribution.from_gaussian_mechanism(2.0, value_discretization_interval=1e-3)
    assert envelope.dominated(whole) == pytest.approx(0.5, rel=4e-3)
    assert envelope.dominating(whole, 1e-9) == pytest.approx(0.5, rel=2e-3)


# -- campaigns ---------------------------------------------------------------------------------------------------------

COUNTS = GaussianCounts(noise_std=10.0)
CAMPAIGN = (Lot(mechanism=BANK, times=20), Lot(mechanism=COUNTS, times=21))
BANKS = [BANK] * 20 + [COUNTS] * 21


def a_charge(number: int, *mechanisms, campaign=CAMPAIGN, run: str = "spring", **more) -> Charge:
    return Charge(federation="banks", run=run, round=number, purpose="train", plan=f"{number:064x}",
                  mechanisms=mechanisms or (BANK, COUNTS), delta_dp=DELTA, utc="2026-03-01T00:00:00Z",
                  campaign=campaign, **more)


@pytest.fixture
def book(tmp_path):
    return create(tmp_path / "ledger.jsonl", "loans")


def test_a_campaign_is_set_aside_whole_at_its_first_charge_and_costs_what_composition_says(book):
    book = charge(book, a_charge(1), 5.0)
    assert held(book, DELTA) == epsilon(BANKS, DELTA)
    assert spent(book, DELTA) == epsilon([BANK, COUNTS], DELTA)
    for number in range(2, 21):
        book = charge(book, a_charge(number), 5.0)
    assert held(book, DELTA) == epsilon(BANKS, DELTA) <= 5.0
    book = charge(book, a_charge(21, COUNTS, campaign=(Lot(mechanism=COUNTS, times=1),)), 5.0)      # the last evaluation
    assert held(book, DELTA) == spent(book, DELTA) == epsilon(BANKS, DELTA)
    with pytest.raises(BudgetError):
        charge(book, a_charge(22, COUNTS, campaign=(Lot(mechanism=COUNTS, times=1),)), 5.0)


def test_another_campaign_is_refused_while_the_first_has_most_of_its_rounds_to_come(book):
    """Before, it was let in, and the first one's promise ended where the budget did."""
    book = charge(book, a_charge(1), 5.0)
    with pytest.raises(BudgetError):
        charge(book, a_charge(1, run="summer"), 5.0)


def test_a_round_beyond_what_the_plan_promised_is_refused_under_any_policy(book):
    promised = Bound(epsilon(BANKS, DELTA), DELTA, "record", "spring", "the plan promises")
    for number in range(1, 21):
        book = charge(book, a_charge(number), 100.0, None, None, promised)
    with pytest.raises(BudgetError, match="the plan promises"):
        charge(book, a_charge(21), 100.0, None, None, promised)
    assert len(charge(book, a_charge(21), 100.0).charges) == 21


def test_later_campaigns_cost_a_little_more_than_if_they_had_been_fixed_beforehand(book):
    book = charge(charge(book, a_charge(1), 50.0), a_charge(1, run="summer"), 50.0)
    fixed = epsilon(BANKS * 2, DELTA)
    assert fixed < held(book, DELTA) < 1.01 * fixed


def test_counts_that_are_asked_in_between_end_no_training_and_another_way_to_train_does(book):
    """What a run set aside for the way before is given back: it can never be used."""
    other = GaussianCounts(noise_std=20.0)
    asked = (Lot(mechanism=other, times=1),)
    for one in (a_charge(1, terms="a" * 64), a_charge(1, other, campaign=asked).model_copy(update={"purpose": "measure"}),
                a_charge(2, terms="a" * 64)):
        book = charge(book, one, 50.0)
    assert [(one.is_open, one.rounds) for one in book.book.campaigns] == [(True, 2), (True, 0)]
    other = BANK.model_copy(update={"noise_multiplier": 9.0})
    book = charge(book, a_charge(3, other, campaign=(Lot(mechanism=other, times=2),), terms="b" * 64), 50.0)
    assert [(one.is_open, one.rounds) for one in book.book.campaigns] == [(False, 2), (True, 0), (True, 1)]


def test_a_run_whose_rows_changed_under_the_same_terms_goes_on_and_one_that_only_counts_does_not(book):
    """Nobody chose the new mechanism from what was released."""
    other = BANK.model_copy(update={"noise_multiplier": 9.0})
    book = charge(book, a_charge(1, terms="a" * 64), 50.0)
    book = charge(book, a_charge(2, other, campaign=(Lot(mechanism=other, times=2),), terms="a" * 64), 50.0)
    (campaign,) = book.book.campaigns
    assert (campaign.rounds, campaign.lots) == (2, (Lot(mechanism=other, times=2),))
    assert held(book, DELTA) == epsilon([BANK, COUNTS, other, other], DELTA)
    assert spent(book, DELTA) == epsilon([BANK, COUNTS, other], DELTA)
    louder = GaussianCounts(noise_std=20.0)
    for one in (COUNTS, louder):
        book = charge(book, a_charge(1, one, campaign=(Lot(mechanism=one, times=1),), run="counts", terms="a" * 64), 50.0)
    assert [one.run for one in book.book.campaigns] == ["spring", "counts", "counts"]


def test_an_adaptively_moved_clip_norm_draws_on_the_same_campaign(book):
    book = charge(book, a_charge(1), 5.0)
    book = charge(book, a_charge(2, BANK.model_copy(update={"clip_norm": 0.3}), COUNTS), 5.0)
    assert held(book, DELTA) == epsilon(BANKS, DELTA)


def test_what_is_closed_gives_back_less_than_it_held_and_never_more_than_it_had_left(book):
    first = charge(book, a_charge(1), 50.0)
    both = charge(first, a_charge(1, run="summer"), 50.0)
    closed = add(both, Closing(federation="banks", run="spring", utc="2026-03-02T00:00:00Z"))
    rest = epsilon_of_batches([Batch(((BANK, 1), (COUNTS, 1))), Batch(((BANK, 20), (COUNTS, 21)))], DELTA)
    assert rest < held(closed, DELTA) < held(both, DELTA)
    again = charge(closed, a_charge(2), 50.0)               # a new campaign: what was given back is gone
    assert held(again, DELTA) > held(both, DELTA)
    assert read(again.path) == again


def test_giving_back_is_sound_for_whoever_stops_at_the_worst_moment():
    """Two rounds are fixed; after the first, by what it showed, go on or exchange the second for what it gives back."""
    mu = math.sqrt(accounting._dominated((((2.0, 0.4, 20, False), 1),)))
    assert mu > 0.5
    one, other = (privacy_loss_distribution.from_gaussian_mechanism(
        noise, sampling_prob=rate, value_discretization_interval=5e-3) for noise, rate in ((2.0, 0.4), (1 / mu, 1.0)))
    one = one.self_compose(20)
    both = one.self_compose(2)
    for pmf in ("_pmf_remove", "_pmf_add"):
        first = getattr(one, pmf).to_dense_pmf()
        for eps in (0.2, 1.0, 2.0, 3.0):
            left_L = eps - (first._lower_loss + np.arange(first.size)) * 5e-3
            stay_L, swap_L = (np.asarray(getattr(kind, pmf).get_delta_for_epsilon(left_L[::-1]))[::-1]
                              for kind in (one, other))
            best = float(np.dot(first._probs, np.maximum(stay_L, swap_L))) + first._infinity_mass
            assert best <= both.get_delta_for_epsilon(eps) * (1 + 1e-2) + 1e-9


# -- whose rows --------------------------------------------------------------------------------------------------------

APART = ("train", "validation")
PARTED = (Lot(mechanism=BANK, rows="train", times=20), Lot(mechanism=COUNTS, rows="validation", times=21))


def test_rows_to_train_on_and_rows_held_out_pay_for_themselves(book):
    for number in range(1, 21):
        book = charge(book, a_charge(number, campaign=PARTED, rows=APART), 50.0)
    assert held(book, DELTA) == max(epsilon([BANK] * 20, DELTA), epsilon([COUNTS] * 21, DELTA))


def test_a_row_that_moved_pays_for_both_from_the_first_round_on(book):
    book = charge(book, a_charge(1, campaign=PARTED, rows=APART), 50.0)
    moved = Shared(shared=({"rows": "train"}, {"rows": "validation"}), utc="2026-03-02T00:00:00Z")
    assert held(add(book, moved), DELTA) == epsilon(BANKS, DELTA) > held(book, DELTA)


def test_a_year_of_weeks_costs_each_record_its_own_week(book):
    """52 partitions at epsilon below 5 each; what is charged to no partition is paid by all."""
    once = (Lot(mechanism=BANK, rows="train", times=1), Lot(mechanism=COUNTS, rows="validation", times=2))
    for week in range(1, 53):
        book = charge(book, a_charge(week, campaign=once, rows=APART, partition=f"2026-w{week:02d}-5a3c1f70"), 5.0)
    each = max(epsilon([BANK], DELTA), epsilon([COUNTS] * 2, DELTA))
    assert held(book, DELTA) == each
    with_a_return = add(book, Shared(utc="2026-12-31T00:00:00Z", shared=tuple(
        {"partition": f"2026-w{week:02d}-5a3c1f70", "rows": "train"} for week in (7, 31))))
    twice = epsilon_of_batches([Batch(((BANK, 1),)), Batch(((BANK, 1),))], DELTA)
    assert each < held(with_a_return, DELTA) == pytest.approx(twice)
    everybody = charge(book, a_charge(60, GaussianUpdate(noise_multiplier=8.0, clip_norm=1.0), campaign=(
        Lot(mechanism=GaussianUpdate(noise_multiplier=8.0, clip_norm=1.0), times=1),)), 50.0)
    assert held(everybody, DELTA) > each
