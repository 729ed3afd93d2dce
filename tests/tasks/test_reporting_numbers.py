"""Findings and numbers as people read them: each count with its noise, privacy rounded up, ticks around what is drawn."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedround.learning.tasks import Margin, Metrics
from fedround.privacy.spec import GaussianCounts, NoMechanism
from fedround.records import Finding, Told
from fedround.statistics import Histogram, Release
from tasks.reporting import RoundRecord, render_html, render_markdown
from tasks.reporting.charts import Point, epsilon_chart, line, nice_ticks, round_ticks, site_charts
from tasks.reporting.finding import head, render_finding, tables, texts
from tasks.reporting.words import amount, significant, spent, with_margin
from tests.tasks.recorded import Page, record, shape, updated, with_


def finding(**changes: object) -> Finding:
    ages = Histogram(column="age | x", edges=(30.0, 60.0), noise_std=10.0)
    return Finding(**{
        "federation": "banks", "run": "study", "round": 0, "attempt": 1, "plan": "0" * 64, "tool_version": "0.1.0",
        "answers": (Told(site="a", answer="1" * 64), Told(site="b", answer="2" * 64)), "missing": ("c",), "totals": (Release(
            statistic=ages, numbers=(-3.2, 1200.4, 7.0, 0.0), mechanism=GaussianCounts(noise_std=20.0)),), **changes})


def test_a_finding_says_every_count_and_how_far_noise_may_have_moved_it():
    (table,) = tables(finding().totals)
    assert (table.title, head(table)) == ("histograms of columns: age | x", ("age | x", "records", "95 %"))
    assert [texts(one) for one in table.estimates] == [
        ("below 30", "-3", "-42 to 36"), ("30 to 60", "1,200", "1,161 to 1,240"), ("from 60", "7", "-32 to 46"),
        ("missing", "0", "-39 to 39")]
    exact = Release(statistic=Histogram(column="age", edges=(30.0,), noise_std=0.0), numbers=(1.0, 2.0, 0.0),
                    mechanism=NoMechanism())
    assert [texts(one)[-1] for one in tables([exact])[0].estimates] == ["exact"] * 3


def test_a_finding_as_markdown_is_tables_whatever_the_question_named():
    markdown = render_finding(finding())
    assert "counted at 2 of 3 sites" in markdown
    assert "| `30 to 60` | 1,200 | 1,161 to 1,240 |" in markdown
    assert shape(markdown) == shape(markdown.replace("age ¦ x", "age"))


@given(st.floats(0, 100))
def test_privacy_spent_is_rounded_up(epsilon):
    assert epsilon - 1e-9 <= float(spent(epsilon)) < epsilon + 0.0101


def test_numbers_read_well():
    assert [significant(value) for value in (1.1, 0.84, 480.0, 12345.0, 0.0, None)] == [
        "1.10", "0.840", "480", "1.23e+04", "0", "–"]
    assert [amount(value) for value in (4625.0, 0.5, 5.0, 12_345_678_901)] == [
        "4\u202f625", "0.5", "5", "12\u202f345\u202f678\u202f901"]


@given(st.floats(-1e4, 1e4), st.floats(0, 1e4))
@example(0.001, 0.004)
def test_ticks_enclose_the_values(low, width):
    ticks = nice_ticks(low, low + width)
    assert 2 <= len(ticks) <= 8
    assert low < 0 or ticks[0] >= 0             # no epsilon and no AUC is below 0
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


def noised(number: int, auc: float, margin: float, **sites: float) -> RoundRecord:
    rows = [updated(site, local=Metrics(auc=value, rows=80), local_margin=Margin(auc=0.05)) for site, value in sites.items()]
    return with_(record(number, *rows), at_sites=Metrics(auc=auc, rows=300), at_sites_margin=Margin(auc=margin))


def page_text(*rounds: RoundRecord) -> str:
    return " ".join(Page(render_html(rounds)).text.split())


def test_a_change_that_noise_may_have_made_does_not_read_as_a_worse_model():
    """Both are noised: so the margin of their difference is the root of the sum of squares."""
    worse = page_text(noised(1, 0.760, 0.03, a=0.7), noised(2, 0.726, 0.0191, a=0.7))
    assert "0.726 ± 0.020 −0.034, no more than noise does, since round 1" in worse
    assert "95 of 100 repeats of the noise" in worse
    sure = page_text(noised(1, 0.760, 0.02, a=0.7), noised(2, 0.726, 0.02, a=0.7))
    assert "−0.034, more than noise does, since round 1" in sure
    exact = page_text(record(1, auc=0.760), record(2, auc=0.726))
    assert "0.726 −0.034 since round 1" in exact
    assert "repeats of the noise" not in exact


def test_every_noised_number_has_its_margin_wherever_it_stands():
    rounds = [noised(1, 0.760, 0.0301, a=0.7, b=0.6), noised(2, 0.726, 0.02, a=0.71, b=0.61)]
    html, markdown = render_html(rounds), render_markdown(rounds)
    for said in (html, markdown):
        assert "0.760 ± 0.031" in said          # a margin is rounded up
        assert "0.726 ± 0.020" in said
    assert html.count("0.710 ± 0.050") == 3     # the table of sites, the curve's summary and its point
    assert with_margin(0.5, None) == "0.500"


def test_bars_are_as_long_as_the_margins_and_stay_inside_the_chart():
    chart = line("AUC", [Point(1, 0.7, 0.1), Point(2, 0.8), Point(3, 0.9, 0.05)])
    first, last = (tuple(map(float, one)) for one in re.findall(r"M([\d.]+),([\d.]+)V([\d.]+)", chart.spans))
    assert (first[0], last[0]) == (chart.dots[0].x, chart.dots[2].x)
    assert first[1] - first[2] == pytest.approx(2 * (last[1] - last[2]), abs=0.2)
    assert (first[1] + first[2]) / 2 == pytest.approx(chart.dots[0].y, abs=0.1)
    assert all(0 < end < chart.height for one in (first, last) for end in one[1:])


def test_each_site_has_a_curve_on_the_same_axes_once_two_rounds_are_known():
    assert site_charts([noised(1, 0.7, 0.02, a=0.7, b=0.6)]) == []
    first, second = site_charts([noised(1, 0.7, 0.02, a=0.7, b=0.6), noised(2, 0.7, 0.02, a=0.8)])
    assert (first.title, second.title) == ("a: AUC", "b: AUC")
    assert (first.rows, first.columns) == (second.rows, second.columns)
    assert (len(first.dots), len(second.dots)) == (2, 1)
    crowd = {f"site-{number}": 0.7 for number in range(31)}
    assert site_charts([noised(1, 0.7, 0.02, **crowd), noised(2, 0.7, 0.02, **crowd)]) == []


def test_ticks_say_where_they_stand():
    """0.725 is not 0.72."""
    assert [tick.text for tick in line("AUC", [Point(1, 0.64), Point(2, 0.74)]).rows] == [
        "0.625", "0.650", "0.675", "0.700", "0.725", "0.750"]
    assert line("AUC", [Point(1, 0.1), Point(2, 0.9)]).rows[0].text == "0.00"
