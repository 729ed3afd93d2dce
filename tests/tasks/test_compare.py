"""Two runs side by side say what their records say, call noise noise, and obey no name."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedround.errors import ContractError
from fedround.learning.tasks import Margin, Metrics
from tasks import pages
from tasks.reporting import RoundRecord
from tasks.reporting.compare import differences, render_comparison, results
from tests.tasks.recorded import ATTACK, Page, record, svgs, updated, with_
from tests.tasks.test_pages import dated, links


def run(name: str, auc: float, **changes: object) -> list[RoundRecord]:
    return [with_(record(number, updated("a"), auc=auc), run=name, uploaded_bytes=700, at_sites=Metrics(auc=auc, rows=90),
                  at_sites_margin=Margin(auc=0.03), **changes) for number in (1, 2)]


def test_results_stand_side_by_side_and_noise_is_called_noise():
    found = {fact.what: (fact.one, fact.other, fact.apart) for fact in results(run("spring", 0.760), run("autumn", 0.726))}
    assert found["AUC"] == ("0.760", "0.726", "−0.034")
    assert found["AUC at the sites, noised"] == ("0.760 ± 0.030", "0.726 ± 0.030", "−0.034, no more than noise does")
    assert found["Uploaded bytes"][:2] == ("1\u202f400", "1\u202f400")
    of_old = [with_(one, uploaded_bytes=0) for one in run("old", 0.7)]                   # not known
    assert ("Uploaded bytes", "–") in [(fact.what, fact.one) for fact in results(of_old, run("new", 0.7))]
    assert found["Largest epsilon"][:2] == ("2.00 of 5", "2.00 of 5")


def test_a_metric_that_one_run_alone_has_is_told_and_not_drawn():
    other = [with_(one, public=Metrics(accuracy=0.9, rows=100)) for one in run("autumn", 0.7)]
    found = {fact.what: (fact.one, fact.other, fact.apart) for fact in results(run("spring", 0.7), other)}
    assert (found["AUC"], found["Accuracy"]) == (("0.700", "–", ""), ("–", "0.900", ""))
    assert len(svgs(render_comparison(run("spring", 0.7), other))) == 2         # of the AUC at the sites


def test_only_what_was_done_differently_is_listed():
    one, other = run("spring", 0.7)[-1], run("autumn", 0.7, aggregation="median", quorum=1)[-1]
    assert [(fact.what, fact.one, fact.other) for fact in differences(one, other)] == [
        ("Aggregation", "weighted_mean", "median"), ("Quorum", "2", "1")]
    assert differences(one, with_(one, run="autumn")) == []
    assert "Nothing that their records tell" in render_comparison([one], [with_(one, run="autumn")])


def test_the_page_draws_both_on_the_same_axes_leads_to_both_and_obeys_no_name(tmp_path: Path):
    for number in (1, 2):
        for name in ("spring", "autumn"):
            pages.write(tmp_path, dated(number, name))
    page = pages.write_comparison(tmp_path, pages.of_run(tmp_path, "spring"), pages.of_run(tmp_path, "autumn"))
    assert links(page) == {"All runs": tmp_path / "index.html", "spring, round 2": tmp_path / "spring" / "00002.html",
                           "autumn, round 2": tmp_path / "autumn" / "00002.html"}
    assert links(tmp_path / "index.html")["spring and autumn"] == page
    ticks = [[part.text for part in chart.iter() if part.get("class") == "tick"] for chart in svgs(page.read_text())]
    assert len(ticks) == 4
    assert (ticks[0], ticks[2]) == (ticks[1], ticks[3])
    hostile = Page(render_comparison(run("spring", 0.7), run("autumn", 0.7, aggregation=ATTACK, training=ATTACK)))
    assert "<script>alert(1)</script>" in hostile.text
    assert not {"script", "img"} & {tag for tag, _ in hostile.tags}


def test_the_index_names_comparisons_of_runs_that_are_there_and_no_other_file(tmp_path: Path):
    for name in ("a-and-b", "c", "a"):
        pages.write(tmp_path, dated(1, name))
    page = pages.write_comparison(tmp_path, pages.of_run(tmp_path, "a-and-b"), pages.of_run(tmp_path, "c"))
    (tmp_path / "a-and-gone.html").write_text("of a run that was removed")
    pages.write(tmp_path, dated(2, "c"))                        # a round later the index still has it
    assert {words: at for words, at in links(tmp_path / "index.html").items() if " and " in words} == {"a-and-b and c": page}


def test_a_run_without_records_and_a_path_are_refused_in_words(tmp_path: Path):
    pages.write(tmp_path, dated(1))
    for name in ("summer", "../spring", "."):
        with pytest.raises(ContractError, match="no round of a run"):
            pages.of_run(tmp_path, name)
