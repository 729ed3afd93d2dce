"""Rows told apart by a column of their own."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.statistics.partitions import Partition, Partitions, Recurring

DAY = datetime.date(2026, 11, 29)


@pytest.mark.parametrize(("by", "name", "last"), [
    ("day", "2026-11-29", "2026-11-28"), ("week", "2026-w48", "2026-w47"), ("month", "2026-11", "2026-10")])
def test_a_date_has_one_partition_and_the_last_one_that_is_over_comes_before_it(by: str, name: str, last: str):
    told_apart = Partitions(column="day", by=by)
    for value in (DAY, DAY.isoformat(), f"{DAY} 23:59:59.5", datetime.datetime(2026, 11, 29, 1, tzinfo=datetime.UTC)):
        assert told_apart.name_of(value) == name
    assert told_apart.before(DAY) == last


def test_a_year_of_iso_weeks_ends_where_the_calendar_says():
    assert Partitions(column="day").name_of("2027-01-01") == "2026-w53"


@pytest.mark.parametrize("value", [None, "", "yesterday", "2026-13-01", 20_261_399, float("nan"), [1]])
def test_what_is_no_date_is_in_no_partition(value: object):
    assert Partitions(column="day", by="day").name_of(value) is None


@given(st.lists(st.one_of(st.none(), st.dates().map(str), st.text(max_size=12), st.integers()), max_size=40))
def test_every_row_is_in_one_partition_at_most_whatever_other_rows_there_are(values: list):
    value_N = np.array([*values, None], dtype=object)[:-1]
    told_apart = Partitions(column="day", by="week")
    names = {name for value in values if (name := told_apart.name_of(value)) is not None}
    parts = [Partition(column="day", by="week", name=name).holds(value_N) for name in sorted(names)]
    assert np.sum(parts, axis=0, dtype=int).tolist() == ([int(told_apart.name_of(value) is not None) for value in values]
                                                         if parts else 0)


@given(st.integers(0, 2**63))
def test_attack_a_number_that_misses_in_one_row_moves_no_other_row(number: int):
    """A column of whole numbers comes as fractions if one row lacks its number, and as texts if one is a text."""
    for by in ("value", "day"):
        names = {Partitions(column="day", by=by).name_of(one) for one in (number, float(number), str(number), f"0{number}")}
        assert len(names) == 1, names
    assert Partitions(column="shop", by="value").name_of(float("nan")) is None


@given(st.one_of(st.text(max_size=40), st.floats(), st.booleans(), st.integers(-10**9, 10**9)))
def test_a_row_is_in_no_partition_that_no_plan_can_name(value: object):
    """An operator who counts parts counts no others."""
    for by in ("value", "day", "week", "month"):
        if (name := Partitions(column="shop", by=by).name_of(value)) is not None:
            assert Recurring(column="shop", by=by).named(name).name == name


@pytest.mark.parametrize("value", ["Göttingen", "0.5", 0.5, -7, "a b", "a" * 31, "-", True * 10.0 ** 15])
def test_such_values_are_in_none(value: object):
    assert Partitions(column="shop", by="value").name_of(value) is None


def test_attack_one_long_text_keeps_nobody_busy():
    """Of zeros and no number: to look for the number within it took time by the square of its length, minutes for 100,000."""
    for by in ("value", "day"):
        assert Partitions(column="shop", by=by).name_of("0" * 10 ** 6 + "x") is None


def test_ways_to_tell_rows_apart_are_told_apart_in_a_ledger():
    ways = [Partition(column=column, by=by, name="2026-11") for column in ("day", "due") for by in ("month", "value")]
    assert len({way.in_ledger for way in ways}) == 4
    assert all(way.in_ledger.endswith(way.scheme) for way in ways)


def test_a_partition_is_complete_when_the_agreed_days_have_passed_since_its_end():
    how = Recurring(column="day", wait_days=2)
    assert [how.complete(datetime.date(2026, 11, day)) for day in (23, 24, 25, 30)] == [
        "2026-w46", "2026-w46", "2026-w47", "2026-w47"]
    assert how.named("2026-w46") == Partition(column="day", by="week", name="2026-w46")
    with pytest.raises(ValueError, match="name one"):
        Recurring(column="shop", by="value").complete(DAY)
