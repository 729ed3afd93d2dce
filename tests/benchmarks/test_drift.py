"""What the page on drift says of the car-loan data, in small."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.drift import REFERENCE, by_week, judged, read_loans


@pytest.fixture(scope="module")
def weeks():
    return by_week(read_loans())


def test_a_change_is_found_in_its_week_or_the_next_and_nothing_before_it(weeks):
    """The first weeks, and then those around the change."""
    names = list(weeks)
    some = {week: weeks[week] for week in (*names[:REFERENCE], *(week for week in names if "2019-w10" <= week <= "2019-w14"))}
    alarms = [drift.when for drift in judged(some, 0) if drift.is_alarm]
    assert set(alarms) & {"2019-w13", "2019-w14"}
    assert all(week >= "2019-w13" for week in alarms)


def test_the_same_seed_says_the_same(weeks):
    few = dict(itertools.islice(weeks.items(), REFERENCE + 1))
    assert list(judged(few, 3)) == list(judged(few, 3))
