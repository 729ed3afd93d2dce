"""What statistics count, against loops over records; what one record does to a table, and what a release promises.

Every law is stated once, for all kinds of counts. A new kind adds a line to `STATISTICS`, and a loop to `place_of`. Other
sums have their laws in `test_sums`.
"""

from __future__ import annotations

import datetime
import itertools
import math
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from fedround.errors import ContractError
from fedround.privacy.noise import stream
from fedround.privacy.spec import GaussianCounts, NoMechanism
from fedround.statistics import (
    LARGEST,
    LOUDEST,
    WORDS,
    Between,
    Decisions,
    GroupCounts,
    Histogram,
    Levels,
    LocalEvaluation,
    Ranges,
    Release,
    Scores,
    Statistic,
    release,
    total,
)
from fedround.values import Value, parse
from tests.fedround.statistics.test_sums import SUMS


@dataclass(frozen=True)
class Record:
    """What one record says to every statistic."""

    chance: float
    truth: int
    age: object
    sex: object
    ward: object


@dataclass(frozen=True)
class Rows:
    """A site's records."""

    records: tuple[Record, ...]

    def scores(self):
        return {"score": np.array([one.chance for one in self.records]),
                "truth": np.array([one.truth for one in self.records], np.int64)}

    def column(self, name):
        if name not in ("age", "sex", "ward"):
            raise ContractError(f"there is no column '{name}'")
        values = np.empty(len(self.records), dtype=object)
        values[:] = [getattr(one, name) for one in self.records]
        return values

    held_out = column


AGES = [None, np.nan, np.inf, -np.inf, -4, -3.5, 0, 17.999, 18, 18.0, 40, 65, 66.5, 10 ** 400, -10 ** 400, "65", "old", True,
        [65], (1, 2)]
LEVELS = ["f", "m", "x", "", 1, 1.0, 2, 2.5, True, None, np.nan, ["f"]]
RECORD = st.tuples(st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 0.75, 1.0]) | st.floats(0, 1), st.integers(0, 1),
                   st.sampled_from(AGES), st.sampled_from(LEVELS), st.sampled_from(LEVELS))
RECORDS = st.lists(RECORD, max_size=6).map(lambda found: Rows(tuple(Record(*one) for one in found)))
SOME = st.lists(RECORD, min_size=1, max_size=6).map(lambda found: Rows(tuple(Record(*one) for one in found)))
NOISES = st.sampled_from([0.0, 0.5, 20.0])
EDGES = st.lists(st.sampled_from([-3.5, 0.0, 18.0, 40.0, 65.0, 1e15]), min_size=1, unique=True).map(
    lambda edges: tuple(sorted(edges)))
INNER = st.lists(st.floats(0, 1), min_size=1, max_size=6).map(lambda edges: tuple(sorted(edges)))
NAMED = st.lists(st.sampled_from(["f", "m", 1, 2, 2.5]), min_size=1, unique=True).map(tuple)
STATISTICS = {
    "scores": st.builds(Scores, noise_std=NOISES, bins=st.integers(2, 9)),
    "scores between edges": st.builds(lambda noise_std, edges: Scores(noise_std=noise_std, bins=len(edges) + 1, edges=edges),
                                      NOISES, INNER),
    "histogram": st.builds(Histogram, noise_std=NOISES, column=st.just("age"), edges=EDGES),
    "group_counts": st.builds(lambda noise_std, values: GroupCounts(noise_std=noise_std, by=(
        {"column": "sex", "values": values},)), NOISES, NAMED),
    "group_counts of two": st.builds(lambda noise_std, sex, ward: GroupCounts(noise_std=noise_std, by=(
        {"column": "sex", "values": sex}, {"column": "ward", "values": ward})), NOISES, NAMED, NAMED),
    "decisions by levels": st.builds(lambda noise_std, values, threshold: Decisions(
        noise_std=noise_std, model="0" * 64, of={"column": "sex", "values": values}, threshold=threshold),
        NOISES, NAMED, st.sampled_from([0.0, 0.25, 0.5, 1.0])),
    "decisions by thresholds of their own": st.builds(lambda noise_std, values, at: Decisions(
        noise_std=noise_std, model="0" * 64, of={"column": "sex", "values": values}, threshold=0.5,
        own={"of": {"column": "age", "edges": (18.0,)}, "at": at}),
        NOISES, NAMED, st.tuples(*[st.sampled_from([0.0, 0.25, 0.5, 1.0])] * 3)),
    "decisions by bands": st.builds(lambda noise_std, edges: Decisions(
        noise_std=noise_std, model="0" * 64, of={"column": "age", "edges": edges}, threshold=0.5), NOISES, EDGES),
}
ANY = st.one_of(*STATISTICS.values())


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not (isinstance(value, float) and math.isnan(value))


def place_of(statistic, record: Record) -> tuple[int, ...]:
    """The cell of one record, by the words of the docstrings and nothing else."""
    if isinstance(statistic, Scores):
        edges = statistic.edges or [number / statistic.bins for number in range(1, statistic.bins)]
        return record.truth, sum(edge <= record.chance for edge in edges)
    if isinstance(statistic, Histogram):
        if not is_number(record.age):
            return (len(statistic.edges) + 1,)
        return (sum(edge <= record.age for edge in statistic.edges),)
    if isinstance(statistic, Decisions):
        limit = statistic.threshold
        if statistic.own is not None:
            limit = statistic.own.at[place_of(Histogram(noise_std=1.0, column="age", edges=(18.0,)), record)[0]]
        decision = int(record.chance >= limit)
        if hasattr(statistic.of, "values"):
            return (*place_of(GroupCounts(noise_std=1.0, by=(statistic.of,)), record), record.truth, decision)
        return (*place_of(Histogram(noise_std=1.0, column="age", edges=statistic.of.edges), record), record.truth, decision)
    found = []
    for levels in statistic.by:
        value, group = getattr(record, levels.column), len(levels.values)
        for number, level in enumerate(levels.values):
            if value == level:
                group = number
        found.append(group)
    return tuple(found)


def noise(number: int = 0):
    return stream(bytes(32), b"statistics", str(number).encode())


# -- what is counted ---------------------------------------------------------------------------------------------------


@given(ANY, RECORDS)
def test_cells_are_those_of_a_loop_over_records(statistic, rows):
    expected = np.zeros(statistic.shape, np.int64)
    for record in rows.records:
        expected[place_of(statistic, record)] += 1
    assert statistic.cells(rows).tolist() == expected.tolist()


@given(ANY, RECORDS)
def test_every_record_is_in_one_cell_and_the_shape_is_what_was_said(statistic, rows):
    cells = statistic.cells(rows)
    assert cells.shape == statistic.shape
    assert cells.dtype == np.int64
    assert cells.min(initial=0) >= 0
    assert cells.sum() == len(rows.records)


@given(ANY, SOME, st.data())
def test_one_record_moves_the_cells_by_one_at_most(statistic, rows, data):
    """What the ledger's price rests on: a record replaced by nothing."""
    gone = data.draw(st.integers(0, len(rows.records) - 1))
    without = Rows(tuple(record for place, record in enumerate(rows.records) if place != gone))
    moved = np.linalg.norm(statistic.cells(rows) - statistic.cells(without))
    assert 0 < moved <= 1


@given(ANY, RECORDS, RECORDS)
def test_the_cells_of_two_sites_together_are_the_sum_of_theirs(statistic, one, other):
    both = Rows((*one.records, *other.records))
    assert np.array_equal(statistic.cells(one) + statistic.cells(other), statistic.cells(both))


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True) | st.integers(-100, 100), max_size=9), EDGES)
def test_a_column_of_floats_and_one_of_objects_are_counted_alike(values, edges):
    statistic = Histogram(noise_std=0.0, column="age", edges=edges)
    plain = Rows(tuple(Record(0.5, 1, value, "f", "f") for value in values))

    class Floats(Rows):
        def column(self, name):
            return np.array(values, dtype=np.float64)

    assert statistic.cells(plain).tolist() == statistic.cells(Floats(())).tolist()


def test_an_edge_belongs_to_the_cell_above_it_and_the_last_bin_of_scores_has_one():
    ages = Rows(tuple(Record(0.5, 1, age, "f", "f") for age in (17, 18, 64.9, 65, None, "65")))
    statistic = Histogram(noise_std=0.0, column="age", edges=(18.0, 65.0))
    assert dict(zip(statistic.axes[0].labels, statistic.cells(ages).tolist(), strict=True)) == {
        "below 18": 1, "18 to 65": 2, "from 65": 1, "missing": 2}
    marks = Rows(tuple(Record(chance, truth, 1, "f", "f") for chance, truth in (
        (0.0, 0), (0.24, 0), (0.25, 1), (0.99, 1), (1.0, 1))))
    assert Scores(noise_std=0.0, bins=4).cells(marks).tolist() == [[2, 0, 0, 0], [0, 1, 0, 2]]


def test_groups_of_several_columns_have_an_axis_each_and_what_is_not_named_is_other():
    rows = Rows(tuple(Record(0.5, 1, 1, sex, ward) for sex, ward in (("f", 1), ("f", 3), ("m", 1), (None, None), ("x", 1))))
    statistic = GroupCounts(noise_std=0.0, by=({"column": "sex", "values": ("f", "m")}, {"column": "ward", "values": (1,)}))
    assert [levels.labels for levels in statistic.by] == [("f", "m", "other"), ("1", "other")]
    assert statistic.cells(rows).tolist() == [[1, 1], [1, 0], [1, 1]]


def test_a_number_and_its_text_are_one_value_and_so_are_a_truth_and_its_word():
    told = np.array([1, "1", 1.0, True, "true", False, "010", 10, None, math.nan, [1], "x"], dtype=object)
    for values, groups in (((1, "x"), [0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 1]),
                           (("true", "false"), [2, 2, 2, 0, 0, 1] + [2] * 6),
                           ((1, "1"), [0, 1, 0, 0] + [2] * 8), (("010",), [1] * 6 + [0] + [1] * 5)):
        assert Levels(column="c", values=values).group(told).tolist() == groups, values


def test_dates_are_days_between_days_and_each_record_decides_for_itself():
    told = ["2020-01-01", "2019-12-31 23:59:59", "2021-06-05 12:00", "2020-02-30", None, 18262, "20",
            "2020-01-01T00:00:00+02:00", "0001-01-01T00:00:00+14:00", datetime.date(2020, 1, 1),
            pd.NaT, pd.Timestamp("2020-07-01")]
    values = np.empty(len(told), dtype=object)
    values[:] = told
    days = Ranges(column="seen", edges=(18262.0, 18628.0), days=True)
    assert days.labels == ("before 2020-01-01", "2020-01-01 to 2021-01-01", "from 2021-01-01", "missing")
    assert days.group(values).tolist() == [1, 0, 2, 3, 3, 3, 3, 0, 3, 1, 3, 1]
    assert [days.group(values[[place]])[0] for place in range(len(told))] == days.group(values).tolist()
    assert days.group(np.array(["2020-03-01", "NaT"], dtype="datetime64[us]")).tolist() == [1, 3]
    assert Ranges(column="seen", edges=(0.0,)).group(np.array(["2020-03-01"], dtype="datetime64[ns]")).tolist() == [2]
    with pytest.raises(ValueError, match="whole days"):
        Ranges(column="seen", edges=(0.5,), days=True)
    with pytest.raises(ValueError, match="no record is"):
        Between(column="age", low=5, below=5)


def test_edges_that_differ_have_labels_that_differ():
    assert len(set(Ranges(column="x", edges=(1e6, 1e6 + 1, 1e15 - 1, 1e15)).labels)) == 6


def test_what_is_not_there_is_named():
    with pytest.raises(ContractError, match="no column 'weight'"):
        Histogram(noise_std=0.0, column="weight", edges=(1.0,)).cells(Rows(()))


# -- what leaves -------------------------------------------------------------------------------------------------------


@given(ANY.filter(lambda statistic: statistic.noise_std == 0), RECORDS)
def test_without_noise_a_release_is_the_cells_and_costs_more_than_any_budget(statistic, rows):
    told = release(statistic, rows, noise())
    assert told.table.tolist() == statistic.cells(rows).tolist()
    assert told.mechanism == NoMechanism()


@pytest.mark.parametrize("noise_std", [0.5, 20.0])
@pytest.mark.parametrize("kind", [
    lambda noise_std: Scores(noise_std=noise_std, bins=1000),
    lambda noise_std: Histogram(noise_std=noise_std, column="age", edges=tuple(map(float, range(1000)))),
    lambda noise_std: GroupCounts(noise_std=noise_std, by=({"column": "sex", "values": tuple(range(1000))},))],
    ids=["scores", "histogram", "group_counts"])
def test_every_cell_gets_noise_of_its_own_of_the_size_that_is_charged(kind, noise_std):
    statistic = kind(noise_std)
    rows = Rows(tuple(Record(0.5, 1, 3, 4, 4) for _ in range(7)))
    told = release(statistic, rows, noise())
    drawn = (told.table - statistic.cells(rows)).ravel()
    assert told.mechanism == GaussianCounts(noise_std=noise_std)
    assert drawn.std() == pytest.approx(noise_std, rel=0.1)
    assert abs(drawn.mean()) < 5 * noise_std / math.sqrt(len(drawn))
    assert drawn.min() < 0, "negative counts are not cut: cutting would bias what is made of them"
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.15


@given(ANY, SOME)
def test_the_same_noise_on_other_rows_differs_by_what_the_rows_differ(statistic, rows):
    """So nothing but the cells depends on the rows: the number of draws does not either."""
    whole, fewer = (release(statistic, one, noise()) for one in (rows, Rows(rows.records[:-1])))
    change = sorted(np.abs(whole.table - fewer.table).ravel())
    assert change == pytest.approx([0] * (len(change) - 1) + [1], abs=1e-9)


@given(ANY, RECORDS, st.integers(0, 3))
def test_a_retry_repeats_the_numbers(statistic, rows, number):
    assert release(statistic, rows, noise(number)) == release(statistic, rows, noise(number))


@given(ANY, RECORDS)
def test_a_release_is_written_and_read_back_as_it_was(statistic, rows):
    told = release(statistic, rows, noise())
    assert parse(Release, told.model_dump_json(), "a release") == told


@given(ANY, st.sampled_from([-1, 1]))
def test_a_release_of_another_length_is_refused(statistic, more):
    size = math.prod(statistic.shape)
    with pytest.raises(ValueError, match=f"has {size} numbers, got {size + more}"):
        Release(statistic=statistic, numbers=(0.0,) * (size + more), mechanism=statistic.mechanism)


def of_numbers(*numbers: float, noise_std: float = 0.0) -> Release:
    statistic = Scores(noise_std=noise_std, bins=2)
    return Release(statistic=statistic, numbers=numbers, mechanism=statistic.mechanism)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1.1e15, -1.1e15])
def test_a_number_that_is_no_count_of_records_is_refused(number):
    with pytest.raises(ValueError, match="numbers"):
        of_numbers(0.0, 0.0, 0.0, number)


def test_no_single_site_has_as_many_records_as_all_may_have_together():
    assert of_numbers(0.0, -LARGEST, 0.0, LARGEST).is_of_one_site
    assert not of_numbers(0.0, 0.0, 0.0, 1.01 * LARGEST).is_of_one_site
    assert not of_numbers(0.0, -1.01 * LARGEST, 0.0, 0.0).is_of_one_site
    loud = GaussianCounts(noise_std=1.01 * LOUDEST)
    assert not of_numbers(0.0, 0.0, 0.0, 0.0).model_copy(update={"mechanism": loud}).is_of_one_site


# -- all sites together ------------------------------------------------------------------------------------------------


@given(ANY, st.lists(RECORDS, min_size=1, max_size=4))
def test_a_total_is_the_sum_of_the_numbers_and_has_the_noise_of_the_sum(statistic, sites):
    told = [release(statistic, rows, noise(number)) for number, rows in enumerate(sites)]
    everybody = total(told)
    for place in itertools.product(*map(range, statistic.shape)):
        assert everybody.table[place] == pytest.approx(sum(one.table[place] for one in told), abs=1e-6)
    assert everybody.noise_std == pytest.approx(statistic.noise_std * math.sqrt(len(sites)))
    assert everybody.statistic == statistic


def test_a_total_is_of_one_statistic():
    one, other = (Scores(noise_std=0.0, bins=bins) for bins in (2, 3))
    told = [release(statistic, Rows(()), noise()) for statistic in (one, other)]
    for releases in ([], told):
        with pytest.raises(ContractError, match="of one statistic, and of one at least"):
            total(releases)


# -- the values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [
    {"kind": "scores", "noise_std": 1.0, "bins": 1}, {"kind": "scores", "noise_std": -1.0, "bins": 2},
    {"kind": "scores", "noise_std": 1.0, "bins": 3, "edges": [0.5]},
    {"kind": "scores", "noise_std": 1.0, "bins": 3, "edges": [0.5, 0.4]},
    {"kind": "histogram", "noise_std": 1.0, "column": "age", "edges": []},
    {"kind": "histogram", "noise_std": 1.0, "column": "age", "edges": [1.0, 1.0]},
    {"kind": "histogram", "noise_std": 1.0, "column": "a\nge", "edges": [1.0]},
    {"kind": "group_counts", "noise_std": 1.0, "by": []},
    {"kind": "group_counts", "noise_std": 1.0, "by": [{"column": "sex", "values": ["f", "f"]}]},
    {"kind": "group_counts", "noise_std": 1.0, "by": [{"column": "sex", "values": ["f"]}] * 2},
    {"kind": "group_counts", "noise_std": 1.0, "by": [
        {"column": str(number), "values": list(range(100))} for number in range(2)]},
    {"kind": "mean", "noise_std": 1.0}], ids=str)
def test_a_statistic_that_means_nothing_is_refused(wrong):
    class Asked(Value):
        statistic: Statistic

    with pytest.raises(ContractError, match="statistic"):
        parse(Asked, {"statistic": wrong}, "the question")


def test_every_kind_of_statistic_is_tested_here_and_has_a_word_of_its_own():
    kinds = {one.model_fields["kind"].default: one.word for one in get_args(get_args(Statistic)[0])}
    assert kinds.pop("model_sums") == "scores", "who lets scores leave lets a model be judged, whatever it learns"
    assert kinds["hazard_sums"] == kinds.pop("glm_sums"), "who lets steps of one regression leave, lets those of the other"
    tested = {name.split(" ", maxsplit=1)[0] for name in (*STATISTICS, *SUMS)}
    assert tested == {*kinds, "glm_sums"} - {"cox_sums", "importance"}
    assert sorted(kinds.values()) == sorted(set(WORDS))


def test_what_an_evaluation_asks_is_a_statistic():
    asked = LocalEvaluation(bins=4, noise_std=2.0)
    statistic = Scores(noise_std=asked.noise_std, bins=asked.bins)
    assert TypeAdapter(Statistic).validate_python(statistic.model_dump()) == statistic
    assert statistic.shape == (2, 4)
