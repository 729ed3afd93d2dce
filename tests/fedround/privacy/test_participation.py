"""A fixed order is paid for by participation: what a record pays is what an independent count of its rounds says."""

from __future__ import annotations

from collections import Counter

import pytest
from dp_accounting import GaussianDpEvent, NeighboringRelation, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from hypothesis import example, given
from hypothesis import strategies as st

from fedround.learning.spec import LocalTraining
from fedround.learning.train import _batches
from fedround.privacy.accounting import epsilon
from fedround.privacy.entries import Charge, Lot
from fedround.privacy.ledger import charge, create, held, spent
from fedround.privacy.participation import counted, passes, times_left, times_paid
from fedround.privacy.spec import DpFtrl, DpSgd, GaussianCounts, RecordPrivacy
from fedround.privacy.tree import depth
from fedround.rounds.campaign import course, first_row, mechanism_for, misfit
from fedround.statistics import LocalEvaluation

DELTA = 1e-5
ORDER = "a" * 64


@st.composite
def settings_of_rounds(draw):
    steps, batch = draw(st.integers(1, 5)), draw(st.integers(1, 7))
    return DpFtrl(noise_multiplier=2.0, clip_norm=1.0, batch_size=batch, steps=steps,
                  rows=draw(st.integers(steps * batch, 90)))


def rounds_of_each_row(mechanism: DpFtrl, numbers) -> Counter:
    """By the batches that training takes, row by row and round by round."""
    training = LocalTraining(local_steps=mechanism.steps, batch_size=64)
    found = Counter()
    for number in numbers:
        start = first_row(mechanism, number, mechanism.rows)
        taken = [row for batch in _batches(mechanism, training, mechanism.rows, None, start) for row in batch.tolist()]
        assert len(set(taken)) == len(taken)
        found.update(taken)
    return found


@given(settings_of_rounds(), st.integers(1, 30))
def test_the_formula_is_the_count_of_the_record_that_is_in_most_rounds(mechanism, rounds):
    assert times_paid(mechanism, rounds) == max(rounds_of_each_row(mechanism, range(1, rounds + 1)).values())


@given(settings_of_rounds(), st.integers(1, 20), st.integers(0, 20))
def test_any_rounds_in_sequence_cost_one_time_more_at_most(mechanism, rounds, done):
    count = max(rounds_of_each_row(mechanism, range(done + 1, done + rounds + 1)).values())
    assert count <= times_left(mechanism, rounds) <= min(rounds, times_paid(mechanism, rounds) + 1)


def line(mechanism, number: int, attempt: int = 1, **changes) -> Charge:
    return Charge(**{
        "federation": "clinics", "run": "spring", "round": number, "purpose": "train", "plan": f"{number * 9 + attempt:064}",
        "mechanisms": (mechanism,), "delta_dp": DELTA, "utc": "2026-11-30T00:00:00Z", "order": ORDER, **changes})


@given(settings_of_rounds(), st.lists(st.tuples(st.integers(1, 12), st.integers(1, 3)), max_size=20, unique=True))
def test_attack_whatever_rounds_are_asked_and_asked_again_no_record_is_in_more_than_was_paid(mechanism, asked):
    """In any sequence, some left out, some twice: every record's own count is below what the ledger counts."""
    book: list[Charge] = []
    for number, attempt in asked:
        book.append(counted(line(mechanism, number, attempt), book, rounds=100))
    paid = sum(one.times[0] for one in book)
    assert paid >= max(rounds_of_each_row(mechanism, [number for number, _ in asked]).values(), default=0)


@given(settings_of_rounds(), st.lists(st.tuples(st.integers(1, 40), st.integers(1, 2), st.sampled_from([1, 2, 100])),
                                      max_size=20, unique_by=lambda one: one[:2]))
@example(DpFtrl(noise_multiplier=2.0, clip_norm=1.0, batch_size=6, steps=1, rows=10),
         [(1, 1, 1), (7, 1, 1), (8, 1, 100), (6, 1, 100)])
def test_attack_a_promise_of_few_rounds_and_then_of_many_lets_no_pass_be_used_for_nothing(mechanism, asked):
    """A round beyond the promise may touch two passes, and later rounds of both are then taken as paid for."""
    book: list[Charge] = []
    for number, attempt, promised in asked:
        book.append(counted(line(mechanism, number, attempt), book, rounds=promised))
    paid = sum(one.times[0] for one in book)
    assert paid >= max(rounds_of_each_row(mechanism, [number for number, *_ in asked]).values(), default=0)


def test_rounds_in_sequence_pay_once_for_each_pass():
    """North's 300 rows, 96 a round: round 4 begins the second pass before the first has ended."""
    mechanism = DpFtrl(noise_multiplier=2.0, clip_norm=1.0, batch_size=32, steps=3, rows=300)
    assert [list(passes(mechanism, number, 300)) for number in (1, 3, 4, 5)] == [[0], [0], [0, 1], [1]]
    book: list[Charge] = []
    for number in range(1, 8):
        book.append(counted(line(mechanism, number), book, rounds=10))
    assert [one.times[0] for one in book] == [1, 0, 0, 1, 0, 0, 1]
    assert counted(line(mechanism, 3, attempt=2), book, 10).times == (1,)              # the same rows again
    assert counted(line(mechanism, 9), book, 10).times == (0,)
    for other in ({"order": "b" * 64}, {"run": "autumn"}, {"federation": "banks"}, {"partition": "w9-week"}, {"order": None}):
        assert counted(line(mechanism, 9, **other), book, 10).times == (1,), f"nothing was paid for {other}"
    assert counted(line(mechanism, 8), book, rounds=7).times == (1,)                   # a round beyond those that were agreed
    louder = mechanism.model_copy(update={"noise_multiplier": 3.0})
    assert counted(line(louder, 5), book, 10).times == (1,)
    both = mechanism.model_copy(update={"rows": None}), GaussianCounts(noise_std=9.0), DpSgd(
        noise_multiplier=2.0, clip_norm=1.0, sampling_rate=0.1, steps=3)
    assert counted(line(mechanism, 8, mechanisms=(mechanism, *both)), book, 10).times == (0, 1, 1, 1)


@pytest.mark.parametrize(("rows", "before", "after", "times"), [(9000, 7.98, 4.37, 6), (50_000, 7.98, 2.52, 2)])
def test_the_banks_need_the_noise_that_a_second_accountant_calls_for(rows, before, after, times):
    """20 rounds of 10 batches of 256, epsilon 5: a record of 9,000 rows is in six rounds, one of 50,000 in two."""
    privacy = RecordPrivacy(epsilon=5.0, delta_dp=DELTA, rounds=20, mechanism="dp_ftrl")
    quiet = LocalEvaluation(noise_std=10_000.0)
    mechanism = mechanism_for(privacy, LocalTraining(local_steps=10, batch_size=256), quiet, rows)
    assert times_paid(mechanism, 20) == times
    assert mechanism.noise_multiplier == pytest.approx(after, rel=2e-3)
    assert before == pytest.approx(after * (20 / times) ** 0.5, rel=5e-3)
    one = GaussianDpEvent(mechanism.noise_multiplier / depth(10) ** 0.5)
    oracle = PLDAccountant(NeighboringRelation.REPLACE_SPECIAL).compose(SelfComposedDpEvent(one, times)).get_epsilon(DELTA)
    total = [*course(privacy, mechanism, quiet)][-1].total
    assert oracle <= total <= 5.0
    assert total == pytest.approx(oracle, rel=5e-3)


def test_the_ledger_sets_aside_what_a_record_takes_part_in_and_spends_no_more(tmp_path):
    mechanism = DpFtrl(noise_multiplier=6.0, clip_norm=1.0, batch_size=32, steps=3, rows=300)
    book, lots = create(tmp_path / "ledger.jsonl", "people"), (Lot(mechanism=mechanism, rows="all", times=2),)
    for number in range(1, 7):                      # 576 rows: two passes
        one = line(mechanism, number, campaign=lots)
        book = charge(book, counted(one, book.charges, 6), 100.0)
        assert len(book.book.campaigns) == 1
    assert spent(book, DELTA) == held(book, DELTA) == epsilon([mechanism] * 2, DELTA)
    again = charge(book, counted(line(mechanism, 6, campaign=lots), book.charges, 6), 100.0)
    assert len(again.charges) == 6                  # the same plan again is the same charge
    other = charge(book, counted(line(mechanism, 6, campaign=lots, order="b" * 64), book.charges, 6), 100.0)
    assert spent(other, DELTA) > spent(book, DELTA)             # and on other rows it is another one


def test_who_declares_more_rows_than_anybody_has_needs_the_noise_of_one_round():
    """The promise of one round is the least: below a quarter of its noise no number of rows explains it."""
    privacy = RecordPrivacy(epsilon=5.0, delta_dp=DELTA, rounds=20, mechanism="dp_ftrl")
    terms = type("Terms", (), {"privacy": privacy, "evaluation": LocalEvaluation(), "groups": None, "drift": None})
    many = DpFtrl(noise_multiplier=1.7, clip_norm=1.0, batch_size=256, steps=10, rows=10 ** 9)
    assert misfit(terms, many) is None
    assert "too little" in str(misfit(terms, many.model_copy(update={"noise_multiplier": 0.4})))
