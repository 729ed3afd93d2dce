"""A year of weekly campaigns, each on its own week's rows: the ledger's arithmetic, without training.

Every week 1,200 new rows, and a campaign of 20 rounds that promises epsilon 5 per record. With a partition for each week,
only that week's records pay, and the ledger never runs dry. In one data set without partitions the second week is refused.
"""

from pathlib import Path

import pytest

from fedround.errors import BudgetError, LedgerError
from fedround.learning.spec import LocalTraining
from fedround.privacy.entries import Charge, Lot, Shared
from fedround.privacy.ledger import Bound, Ledger, add, charge, create, held, with_entries
from fedround.privacy.spec import GaussianCounts, RecordPrivacy
from fedround.rounds.campaign import mechanism_for
from fedround.statistics import LocalEvaluation

PRIVACY = RecordPrivacy(epsilon=5.0, delta_dp=1e-5, rounds=20)
TRAINING, EVALUATION = LocalTraining(local_steps=10, batch_size=256), LocalEvaluation(noise_std=10.0)
COUNTS = GaussianCounts(noise_std=10.0)
APART = ("train", "validation")
WEEKS, POLICY = 52, 5.0


@pytest.fixture
def book(tmp_path: Path) -> Ledger:
    return create(tmp_path / "ledger.jsonl", "people")


def a_round(week: int, number: int, partition: str | None, run: str | None = None) -> Charge:
    step = mechanism_for(PRIVACY, TRAINING, EVALUATION, rows=1200, apart=True)
    return Charge(
        federation="banks", run=run or f"week-{week}", round=number, purpose="train", plan=f"{100 * week + number:064x}",
        mechanisms=(step, COUNTS), rows=APART, partition=partition, delta_dp=1e-5, utc="2026-01-01T00:00:00Z", campaign=(
            Lot(mechanism=step, rows="train", times=20), Lot(mechanism=COUNTS, rows="validation", times=21)))


def name(week: int) -> str:
    return f"2026-w{week:02d}-5a3c1f70"


def test_a_year_of_weeks_never_asks_for_more_than_one_week_costs(book: Ledger):
    """The policy allows 5 in all, and a campaign that is set aside counts whole: 52 of them fit."""
    for week in range(1, WEEKS + 1):
        book = charge(book, a_round(week, 1, name(week)), POLICY)
    assert 4.99 < held(book, 1e-5) <= 5.0
    for number in range(2, 21):
        book = charge(book, a_round(WEEKS, number, name(WEEKS)), POLICY)
    assert held(book, 1e-5) <= 5.0


def test_without_partitions_the_second_week_is_refused_and_each_one_would_cost_all_records_more(book: Ledger):
    after = charge(book, a_round(1, 1, None), POLICY)
    with pytest.raises(BudgetError, match="to 7.5"):
        charge(after, a_round(2, 1, None), POLICY)
    month = with_entries(book, [a_round(week, 1, None) for week in range(1, 5)])
    assert held(month, 1e-5) == pytest.approx(11.5, abs=0.1)


@pytest.mark.parametrize("run", ["weekly", None], ids=["one run", "a run a week"])
def test_attack_a_round_beyond_the_plans_is_refused_by_partition_too(book: Ledger, run: str | None):
    """Whatever the policy allows: what a run promises holds for each week's records."""
    for week in (1, 2):
        promised = Bound(5.0, 1e-5, "record", run or f"week-{week}", "the plan promises")
        for number in range(1, 21):
            book = charge(book, a_round(week, number, name(week), run), 100.0, promised=promised)
        with pytest.raises(BudgetError, match="the plan promises 5"):
            charge(book, a_round(week, 21, name(week), run), 100.0, promised=promised)


def test_a_row_that_moved_between_both_sides_joins_them_within_its_week_and_not_the_weeks(book: Ledger):
    """It is the same row on both sides, so it has the same date: weeks stay apart, and the year goes on."""
    for week in (1, 2, 3):
        book = charge(book, a_round(week, 1, name(week)), POLICY)
    moved = add(book, Shared(utc="2026-02-01T00:00:00Z", shared=({"rows": "train"}, {"rows": "validation"})))
    one = add(charge(create(book.path.parent / "one.jsonl", "people"), a_round(1, 1, name(1)), POLICY),
              Shared(utc="2026-02-01T00:00:00Z", shared=({"rows": "train"}, {"rows": "validation"})))
    assert held(book, 1e-5) < held(moved, 1e-5) == held(one, 1e-5)


def test_attack_two_processes_that_tell_rows_apart_in_two_ways_cannot_both_charge(book: Ledger):
    """Each has read a ledger without the other's charge. Weeks and months overlap: a row would pay for one of both."""
    charge(book, a_round(1, 1, name(1)), 100.0)
    with pytest.raises(LedgerError, match="both kinds overlap"):
        charge(book, a_round(2, 1, "2026-01-0123abcd"), 100.0)


def test_a_person_in_two_weeks_pays_for_both_and_a_charge_to_all_rows_is_paid_by_every_week(book: Ledger):
    for week in (1, 2, 3):
        book = charge(book, a_round(week, 1, name(week)), POLICY)
    twice = add(book, Shared(utc="2026-02-01T00:00:00Z", shared=tuple(
        {"partition": name(week), "rows": "train"} for week in (1, 3))))
    assert held(twice, 1e-5) == pytest.approx(7.504, abs=0.01)
    with pytest.raises(BudgetError):
        charge(book, a_round(4, 1, None), POLICY)
