"""What a page says of the budget, of targets, and the files inside it: all of it from the records, and nothing else."""

from __future__ import annotations

import base64
import csv
import io
import re
from pathlib import Path

import pandas as pd
import pytest

from fedround.learning.tasks import Margin, Metrics
from fedround.values import parse
from tasks.evaluate import evaluate
from tasks.pages import records
from tasks.report import report
from tasks.reporting import RoundRecord, render_html
from tasks.reporting.charts import spending_chart
from tasks.reporting.record import MOST_DRAWN, drawn
from tasks.reporting.so_far import Milestone, downloads, forecast, milestones
from tests import small_federation
from tests.tasks.recorded import ATTACK, Page, record, refused, updated, with_


def text_of(data: str) -> str:
    return base64.b64decode(data.partition("base64,")[2]).decode()


def table_of(data: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text_of(data))))


@pytest.mark.parametrize(("number", "says"), [
    (1, "Epsilon 5 was agreed for 3 rounds: 2 more rounds fit, and after all of them no site has spent more than 5 on this"),
    (2, "Epsilon 5 was agreed for 3 rounds: 1 more round fits"), (3, "All 3 rounds for which epsilon 5 was agreed are done"),
    (4, "All 3 rounds for which")])
def test_the_forecast_says_how_many_rounds_fit_and_what_is_spent(number: int, says: str):
    now = with_(record(number, updated("a", epsilon=2.0), updated("b", epsilon=2.501)), rounds_agreed=3)
    assert forecast(now).startswith(says)
    assert forecast(now).endswith("So far b has spent most, 2.51.")
    assert forecast(now) in " ".join(Page(render_html([now])).text.split())
    assert forecast(with_(now, rounds_agreed=None)) == forecast(with_(now, epsilon_limit=None)) == ""
    shared = with_(record(number, updated("b", epsilon=2.501, epsilon_alone=8.25)), rounds_agreed=3)
    assert forecast(shared).endswith("Noise is shared: if nobody else's counted, it would be 8.25.")


def test_what_is_spent_is_drawn_below_its_limit_with_room_for_every_round():
    rounds = [with_(record(number, updated("a", epsilon=float(number))), rounds_agreed=10) for number in (1, 2)]
    chart = spending_chart(rounds)
    assert (chart.columns[-1].text, chart.limit.text) == ("10", "limit 5")
    assert chart.limit.y < chart.dots[1].y < chart.dots[0].y
    assert chart.last.text == "2.00"
    assert spending_chart([with_(record(1), epsilon_limit=None)]) is None


@pytest.mark.parametrize("count", [1, 99, 100, 101, 149, 150, 151, 333, 1000, 5000])
def test_a_page_draws_no_more_rounds_however_long_the_run_is_and_its_file_holds_all(count: int):
    rounds = [record(number, auc=0.6) for number in range(1, count + 1)]
    shown = [one.round for one in drawn(rounds)]
    assert shown == sorted(set(shown))
    assert len(shown) == count if count <= MOST_DRAWN else MOST_DRAWN // 2 < len(shown) <= MOST_DRAWN
    assert shown[0] == 1
    assert shown[-MOST_DRAWN // 2:] == list(range(max(1, count - MOST_DRAWN // 2 + 1), count + 1))
    if count in (100, 333):
        page = Page(render_html(rounds))
        assert len(table_of(downloads(rounds)[2].address)) == count
        assert ("of the 333 rounds so far" in page.text) == (count == 333)


def test_a_target_is_told_with_the_first_round_that_reached_it_and_all_bytes_until_then():
    rounds = [with_(record(number, auc=auc), uploaded_bytes=100 * number)
              for number, auc in ((1, 0.60), (2, 0.68), (3, 0.66), (4, 0.71))]
    word, found = milestones(rounds)
    assert word == "AUC"
    assert Milestone(0.66, 2, 300) in found or Milestone(0.65, 2, 300) in found
    assert all(one.round in (2, 4) and one.uploaded_bytes == {2: 300, 4: 1000}[one.round] for one in found)
    assert all(one.uploaded_bytes is None for one in milestones(rounds[1:])[1])      # what came before is not known
    assert milestones(rounds[:1]) == ("AUC", [])


def test_the_files_inside_a_page_say_what_the_record_says():
    first = with_(record(1, auc=0.6), at_sites=Metrics(auc=0.61, rows=300), at_sites_margin=Margin(auc=0.04))
    last = record(2, updated("a", uploaded_bytes=512, local_margin=Margin(auc=0.05)), refused("no", "age.range"))
    page = render_html([first, last])
    sent = re.findall(r'<a download="([^"]+)" href="(data:[^"]+)">', page)
    assert [name for name, _ in sent] == ["banks-spring-00002.json", "banks-spring-00002-sites.csv",
                                          "banks-spring-00002-rounds.csv"]
    assert parse(RoundRecord, text_of(sent[0][1]), "download") == last
    sites, rounds = (table_of(data) for _, data in sent[1:])
    assert (sites[0]["site"], sites[0]["uploaded_bytes"], sites[0]["local_margin"]) == ("a", "512", "0.05")
    assert (sites[1]["outcome"], sites[1]["epsilon"]) == ("refused", "")
    assert [(one["round"], one["public_auc"], one["at_sites_auc"], one["at_sites_auc_margin"]) for one in rounds] == [
        ("1", "0.6", "0.61", "0.04"), ("2", "0.7", "", "")]


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "＝1", ATTACK])
def test_a_spreadsheet_obeys_no_name(name: str):
    (row,) = table_of(downloads([record(1, updated(name))])[1].address)
    assert not row["site"].startswith(("=", "+", "-", "@", "\t", "\r", "＝"))
    assert "<script>" not in render_html([record(1, updated(name))])


def test_a_page_and_its_files_hold_no_count_of_rows_and_no_value_of_a_row(tmp_path: Path, rows_are_judged_here: None):
    """Canaries: numbers of rows that occur nowhere else, and every value of every row, to ten digits."""
    federation = small_federation.make(tmp_path, units=("none",), privacy={"unit": "none"}, evaluation={
        "bins": 10, "noise_std": 400.0})
    tables = []
    for seed, name in enumerate(small_federation.NAMES):
        for file, count in (("train", 1237), ("validation", 983)):
            tables.append(small_federation.rows(count + 10 * seed, 70 + seed))
            tables[-1].to_parquet(tmp_path / "data" / name / f"{file}.parquet")
    coordinator = federation.coordinator
    for _ in range(2):
        planned = federation.plan()
        assert [federation.answer(name, planned) for name in small_federation.NAMES] == ["update"] * 3
        collected, committed = federation.collect(planned), federation.commit(planned)
        report(coordinator, planned, collected, committed, evaluate(coordinator, committed.commit), 1.0)
    said = "".join(one.read_text() for one in sorted(coordinator.reports.rglob("*.*")) if one.suffix in (".html", ".json"))
    said += "".join(text_of(data) for data in re.findall(r'href="(data:[^"]+)"', said))
    assert len(records(coordinator.reports, "spring")) == 2
    numbers = set(re.findall(r"(?<![\w.])\d+(?![\w.])", said))
    assert "3" in numbers
    assert not numbers & {str(count + 10 * seed) for count in (1237, 983) for seed in range(3)}
    values = {f"{abs(value):.10g}" for table in tables for value in pd.concat([table.x1, table.x2])}
    written = {f"{float(one):.10g}" for one in re.findall(r"\d+\.\d{4,}", said)}
    assert len(values) > 3000
    assert not values & written
