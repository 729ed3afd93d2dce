"""Findings and numbers as people read them: each count with its noise, privacy rounded up, ticks around what is drawn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.privacy.spec import GaussianCounts, NoMechanism
from fedround.records import Finding, Told
from fedround.statistics import Histogram, Release
from tasks.reporting.charts import epsilon_chart, nice_ticks, round_ticks
from tasks.reporting.finding import render_finding, tables
from tasks.reporting.words import amount, significant, spent
from tests.tasks.test_reporting import record, shape, updated


def finding(**changes: object) -> Finding:
    ages = Histogram(column="age | x", edges=(30.0, 60.0), noise_std=10.0)
    return Finding(**{
        "federation": "banks", "run": "study", "round": 0, "attempt": 1, "plan": "0" * 64, "tool_version": "0.1.0",
        "answers": (Told(site="a", answer="1" * 64), Told(site="b", answer="2" * 64)), "missing": ("c",), "totals": (Release(
            statistic=ages, numbers=(-3.2, 1200.4, 7.0, 0.0), mechanism=GaussianCounts(noise_std=20.0)),), **changes})


def test_a_finding_says_every_count_and_how_far_noise_may_have_moved_it():
    (table,) = tables(finding().totals)
    assert (table.title, table.head) == ("histograms of columns: age | x", ("age | x", "records", "95 %"))
    assert [cell.texts for cell in table.cells] == [
        ("below 30", "-3", "± 39"), ("30 to 60", "1,200", "± 39"), ("from 60", "7", "± 39"), ("missing", "0", "± 39")]
    exact = Release(statistic=Histogram(column="age", edges=(30.0,), noise_std=0.0), numbers=(1.0, 2.0, 0.0),
                    mechanism=NoMechanism())
    assert [cell.texts[-1] for cell in tables([exact])[0].cells] == ["exact"] * 3


def test_a_finding_as_markdown_is_tables_whatever_the_question_named():
    markdown = render_finding(finding())
    assert "counted at 2 of 3 sites" in markdown
    assert "| `30 to 60` | 1,200 | ± 39 |" in markdown
    assert shape(markdown) == shape(markdown.replace("age ¦ x", "age"))


@given(st.floats(0, 100))
def test_privacy_spent_is_rounded_up(epsilon):
    assert epsilon - 1e-9 <= float(spent(epsilon)) < epsilon + 0.0101


def test_numbers_read_well():
    assert [significant(value) for value in (1.1, 0.84, 480.0, 12345.0, 0.0, None)] == [
        "1.10", "0.840", "480", "1.23e+04", "0", "–"]
    assert [amount(value) for value in (4625.0, 0.5, 5.0)] == ["4\u202f625", "0.5", "5"]


@given(st.floats(-1e4, 1e4), st.floats(0, 1e4))
def test_ticks_enclose_the_values(low, width):
    ticks = nice_ticks(low, low + width)
    assert 2 <= len(ticks) <= 8
    assert ticks[0] <= low + 1e-6
    assert ticks[-1] >= low + width - 1e-6
    assert ticks == sorted(set(ticks))


@given(st.integers(1, 500), st.integers(0, 5000))
def test_round_ticks_are_few_and_end_with_the_last_round(first, span):
    ticks = round_ticks([first, first + span])
    assert 1 <= len(ticks) <= 12
    assert ticks[-1] == first + span
    assert ticks == sorted(set(ticks))


def test_the_limit_lies_where_its_epsilon_would_end():
    chart = epsilon_chart(record(1, updated("a", epsilon=5.0), updated("b", epsilon=2.5)))
    assert chart.limit.x == pytest.approx(chart.left + chart.bars[0].length)
    assert chart.bars[1].length == pytest.approx(chart.bars[0].length / 2, abs=0.1)
