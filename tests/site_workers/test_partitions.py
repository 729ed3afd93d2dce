"""A plan about one week's rows: only they are counted, and only they pay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from fedround import layout
from fedround.privacy import ledger
from fedround.privacy.accounting import epsilon
from fedround.privacy.spec import GaussianCounts
from fedround.records import Measure
from fedround.signing import seal
from fedround.statistics import Histogram
from fedround.statistics.partitions import Partition
from tests import small_federation
from tests.site_workers.test_measure import allow, answer, said
from tests.small_federation import SmallFederation, changed

X1 = Histogram(column="x1", edges=(-1.0, 0.0, 1.0), noise_std=4.0)
ONCE = epsilon([GaussianCounts(noise_std=4.0)], 1e-5)
WEEKS = ("2026-w01", "2026-w02", "2026-w03")
Ask = Callable[[int, Partition | None], str]


@pytest.fixture
def weekly(tmp_path, rows_are_judged_here: None) -> SmallFederation:
    """Rows of three weeks at north, and some without a date."""
    federation = small_federation.make(tmp_path)
    for path in (federation.root / "data" / "north").glob("*.parquet"):
        frame = pd.read_parquet(path)
        days = ["2026-01-01", "2026-01-05", "2026-01-12", None]
        frame.assign(day=pd.to_datetime([days[row % 4] for row in range(len(frame))])).to_parquet(path)
    allow(federation, "north")
    return federation


def ask(federation: SmallFederation, attempt: int, part: Partition | None) -> str:
    plan = changed(federation.plan().plan, round=0, attempt=attempt, asks=Measure(statistics=(X1,), partition=part))
    federation.coordinator.store.put_once(
        layout.plan("spring", 0, attempt, "measure"), seal(plan, federation.coordinator.identity))
    return answer(federation, attempt=attempt)


def week(name: str) -> Partition:
    return Partition(column="day", by="week", name=name)


def book(federation: SmallFederation) -> ledger.Ledger:
    return ledger.read(federation.site("north").ledger)


def test_only_the_weeks_rows_are_counted_and_each_week_pays_for_itself(weekly: SmallFederation):
    data = weekly.root / "data" / "north"
    frame = pd.concat([pd.read_parquet(data / f"{part}.parquet") for part in ("train", "validation")])
    for attempt, name in enumerate(WEEKS, start=1):
        assert ask(weekly, attempt, week(name)) == "answer"
        (release,) = said(weekly, attempt=attempt).releases
        own = frame[frame["day"].dt.isocalendar().week == attempt]["x1"]
        exact = [*np.histogram(own, bins=[-np.inf, -1, 0, 1, np.inf])[0], 0]
        assert 0 < np.abs(release.table - exact).max() < 6 * 4.0
    found = book(weekly)
    assert [charge.partition for charge in found.charges] == [week(name).in_ledger for name in WEEKS]
    assert ledger.spent(found, 1e-5) == pytest.approx(ONCE), "three weeks, and no row has paid for more than one"
    assert ask(weekly, 4, week(WEEKS[0])) == "answer"
    assert ledger.spent(book(weekly), 1e-5) > 1.2 * ONCE, "asked again, a week pays again"


def test_a_question_about_all_rows_is_paid_by_every_week(weekly: SmallFederation):
    ask(weekly, 1, week(WEEKS[0]))
    ask(weekly, 2, week(WEEKS[1]))
    ask(weekly, 3, None)
    assert ledger.spent(book(weekly), 1e-5) > 1.2 * ONCE


def test_attack_weeks_and_months_overlap_so_the_months_are_paid_by_all_rows(weekly: SmallFederation):
    """A row in the first week is in January, too. Taken as two partitions, it would pay for one of them."""
    ask(weekly, 1, week(WEEKS[0]))
    ask(weekly, 2, Partition(column="day", by="month", name="2026-01"))
    first, second = book(weekly).charges
    assert first.partition is not None
    assert second.partition is None
    assert ledger.spent(book(weekly), 1e-5) > 1.2 * ONCE


def test_a_retry_is_charged_once(weekly: SmallFederation):
    ask(weekly, 1, week(WEEKS[0]))
    assert answer(weekly, attempt=1)
    assert len(book(weekly).charges) == 1


def test_rows_without_the_column_are_a_refusal_and_no_charge(weekly: SmallFederation):
    assert ask(weekly, 1, Partition(column="month", by="value", name="january")) == "refusal"
    assert book(weekly).charges == ()
