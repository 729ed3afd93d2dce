"""`fedround ask`: what the options mean, what people and scripts read, and what the certificate says of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from fedround.analytics.compiled import compiled
from fedround.analytics.counting import Count
from fedround.analytics.describing import Table1
from fedround.errors import ContractError
from fedround.statistics import Between, Bounded, GroupCounts, Histogram, Levels, OneOf, Ranges
from fedround_cli import campaign
from fedround_cli.ask_options import from_file, from_options
from tests.cli.conftest import Fedround, one_sentence
from tests.small_federation import NAMES, SmallFederation
from tests.tasks.test_ask import allow, concluded, request

WANTED = ("--histogram", "x1=-1,0,1", "--top", "y=0,1", "--noise", "4")
ASKED = (Histogram(column="x1", edges=(-1.0, 0.0, 1.0), noise_std=4.0),
         GroupCounts(by=(Levels(column="y", values=(0, 1)),), noise_std=4.0))


@pytest.fixture
def federation(federation: SmallFederation) -> SmallFederation:
    """All sites allow measurements."""
    allow(federation, *NAMES)
    return federation


@pytest.fixture
def by_the_sites(federation: SmallFederation, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """In the place of servers and processes: who asks for a flow gets its work done here. What was asked for."""
    seen: list[dict] = []

    async def carry_out(coordinator: object, flow: str, asked: dict, *, quiet: bool = False) -> None:
        from tasks.ask import MeasurementRequest

        assert flow == "federated-measurement"
        seen.append(asked)
        await asyncio.to_thread(concluded, federation, MeasurementRequest.model_validate_json(json.dumps(asked)))

    monkeypatch.setattr(campaign, "show_campaign", carry_out)
    return seen


def test_options_become_queries_and_these_statistics():
    no_more = {"by": None, "where": [], "noise": 4.0, "error": None}
    asked = from_options({"histogram": ["x1=-1,0,1"], "top": ["y=0,1"]}, **no_more)
    assert compiled(asked, 3, None, 1.0).statistics == ASKED
    (crossed,) = from_options({"count": [""]}, "sex=f, m x age group:1.5,2", ["age>=40", "ward = 1,b", "age<65"], None, 0.5)
    assert crossed == Count(
        by=(Levels(column="sex", values=("f", "m")), Ranges(column="age group", edges=(1.5, 2.0))), error=0.5,
        where=(Between(column="age", low=40.0), OneOf(column="ward", values=(1, "b")), Between(column="age", below=65.0)))
    (first,) = from_options({"table1": ["age=0:120 + sex=1,2"]}, **no_more)
    assert first == Table1(numbers=(Bounded(column="age", low=0.0, high=120.0),), levels=(
        Levels(column="sex", values=(1, 2)),), noise_std=4.0)


def test_a_file_asks_the_same_as_options(tmp_path: Path):
    path = tmp_path / "study.toml"
    path.write_text('[[ask]]\nwhat = "mean"\nof = [{column = "age", low = 0, high = 120}]\nspread = true\nnoise_std = 2.0\n'
                    'by = [{column = "sex", values = [1, 2]}]\nwhere = [{column = "age", low = 40}]\n')
    assert from_file(path) == from_options({"mean": ["age=0:120"]}, "sex=1,2", ["age>=40"], 2.0, None)
    path.write_text('[[ask]]\nwhat = "mean"\nof = [{column = "age"}]\n')
    with pytest.raises(ContractError, match="'ask.0.of.0.low' is missing"):
        from_file(path)


def test_a_file_with_a_mark_in_front_and_one_that_is_no_text(tmp_path: Path):
    path = tmp_path / "STUDY.TOML"
    said = '[[ask]]\nwhat = "mean"\nof = [{column = "x", low = 0, high = 1}]\n'
    path.write_bytes(b"\xef\xbb\xbf" + said.encode())
    assert from_file(path)[0].what == "mean"
    path.write_bytes(said.encode() + b"# \xe9")
    with pytest.raises(ContractError, match="UTF-8"):
        from_file(path)
    path.write_text(said.replace("low = 0", "low = 2"))
    with pytest.raises(ContractError) as refused:
        from_file(path)
    assert "must ascend" in str(refused.value)
    assert "at least 1 item" not in str(refused.value), "an empty list is no cause, where what was in it does not hold"


@pytest.mark.parametrize(("option", "said", "example"), [
    ("mean", "x1", "its bounds, for example 'age=0:120'"), ("histogram", "x1", "edges, for example 'age=20,30,40'"),
    ("top", "y=", "values, for example 'sex=f,m'"), ("missing", "", "one line of 1 to 200 characters")])
def test_an_option_says_what_it_expects(option: str, said: str, example: str):
    with pytest.raises(ContractError, match=example):
        from_options({option: [said]}, None, [], None, None)
    with pytest.raises(ContractError, match="expected groups, for example 'sex=f,m' or 'age:40,60'"):
        from_options({"count": [""]}, "sex", [], None, None)


def test_texts_that_nobody_named_are_asked_for_by_how_long_they_are():
    (asked,) = from_options({"discover": ["icd=6"]}, None, ["year>=2020"], 4.0, None)
    assert (asked.of, asked.longest, len(asked.where)) == ("icd", 6, 1)
    with pytest.raises(ContractError, match="'long' is no number of characters"):
        from_options({"discover": ["icd=long"]}, None, [], None, None)


@pytest.mark.parametrize(("asked", "where", "words"), [
    ({"mean": ["age=-inf:inf"]}, [], "bounds nothing"),
    ({"mean": ["age=0:1+sex=1"]}, [], "between columns stands ' \\+ '"),
    ({"mean": ["seen=2020-01-01:2021-01-01"]}, [], "dates have edges"),
    ({"histogram": ["seen=2020-01-01,5"]}, [], "not both"),
    ({"histogram": ["seen=2020-13-01"]}, [], "no day of the calendar"),
    ({"correlations": ["age=0:1"]}, [], "at least 2 must be named, not 1"),
    ({"top": [f"t={','.join(map(str, range(2000)))}"]}, [], "^.{80}…: .*at most 1000 may be named, not 2000$"),
    ({"linear": ["age=0:1 ~ age=0:2"]}, [], "'age' is what is explained"),
    *(({"count": [""]}, [one], "there are no others") for one in ("age<=5", "age!=5", "age==5", "age>5"))])
def test_an_odd_option_is_a_sentence(asked: dict, where: list[str], words: str):
    with pytest.raises(ContractError, match=words):
        from_options(asked, None, where, 1.0, None)


def test_dates_and_codes_are_what_they_look_like():
    (asked,) = from_options({"count": [""]}, "seen:2020-01-01,2021-01-01 x icd=010,20,true", ["seen>=2019-01-01"], 1.0, None)
    assert asked.by == (Ranges(column="seen", edges=(18262.0, 18628.0), days=True),
                        Levels(column="icd", values=("010", 20, "true")))
    assert asked.where == (Between(column="seen", low=17897.0, days=True),)


def test_it_asks_shows_a_table_and_asks_nobody_twice(fedround: Fedround, coordinator: Path, by_the_sites: list[dict]):
    told = fedround("ask", "-c", coordinator, *WANTED)
    assert told.exit_code == 0, told.output
    text = " ".join(told.stdout.split())
    for words in ("Run study, round 0: counted at 3 of 3 sites", "histograms of columns: x1", "below -1", "from 1", "missing",
                  "the commonest values of y", " to "):
        assert words in text, words
    assert len(by_the_sites) == 1
    again = fedround("ask", "-c", coordinator, *WANTED)
    assert "nobody is asked, or charged, again" in again.stdout
    assert len(by_the_sites) == 1
    shown = fedround("ask", "--show", "--as", coordinator)
    assert shown.exit_code == 0, shown.output
    assert "histograms of columns: x1" in shown.stdout
    assert "counts of groups: y" in shown.stdout


def test_a_script_reads_the_signed_numbers(fedround: Fedround, coordinator: Path, by_the_sites: list[dict]):
    found = json.loads(fedround("ask", "-c", coordinator, *WANTED, "--json").stdout)
    assert [total["statistic"]["kind"] for total in found["totals"]] == ["histogram", "group_counts"]
    (histogram, groups) = found["tables"]
    assert sorted(one["words"] for one in groups["estimates"]) == [["0"], ["1"]]
    assert [one["value"] for one in histogram["estimates"]] == found["totals"][0]["numbers"]
    low, high = histogram["estimates"][0]["low"], histogram["estimates"][0]["high"]
    assert (high - low) / 2 == pytest.approx(1.96 * 4 * 3 ** 0.5)
    (shown,) = json.loads(fedround("ask", "--show", "--as", coordinator.parent / "north", "--json").stdout)
    assert (shown["totals"], shown["tables"][0]) == (found["totals"], histogram)


def test_a_preview_says_what_it_costs_and_asks_nobody(fedround: Fedround, coordinator: Path, by_the_sites: list[dict]):
    wished = ("ask", "-c", coordinator, "--mean", "x1=-9:9", "--by", "y=0,1")
    told = json.loads(fedround(*wished, "--error", "0.5", "--records", "500", "--preview", "--json").stdout)
    (query,) = told["queries"]
    assert query["expected_error"] == pytest.approx(0.5)
    assert query["noise_std"] == pytest.approx(0.5 * 500 / (1.96 * 9 * (2 * 3 * 3) ** 0.5))
    assert (told["before"], told["promised"], told["fits"]) == (0.0, 8.0, True)
    assert told["after"] == told["epsilon"] > 0
    text = " ".join(fedround(*wished, "--noise", "0.3", "--preview").stdout.split())
    for words in ("Nobody is asked yet", "known when it is answered", "more than the run promises"):
        assert words in text, words
    one_sentence(fedround(*wished, "--error", "0.5"), "--records")
    assert by_the_sites == []


def test_the_cost_of_a_second_question_counts_the_first(fedround: Fedround, coordinator: Path, by_the_sites: list[dict]):
    assert fedround("ask", "-c", coordinator, *WANTED).exit_code == 0
    told = json.loads(fedround("ask", "-c", coordinator, "--mean", "x1=-9:9", "--preview", "--json").stdout)
    assert 0 < told["before"] < told["after"]
    assert told["after"] > told["epsilon"]


def test_a_regression_of_several_rounds_asks_for_each_step_once(fedround: Fedround, coordinator: Path,
                                                                by_the_sites: list[dict]):
    asks = ("ask", "-c", coordinator, "--logistic", "y=1 ~ x1=-2:2 + x2=-2:2", "--noise", "2", "--steps", "3")
    told = fedround(*asks)
    assert told.exit_code == 0, (told.output, told.exception)
    assert "logistic regression: y is 1" in told.stdout
    (table,) = json.loads(fedround(*asks, "--json").stdout)["tables"]
    assert [one["words"] for one in table["estimates"]] == [["intercept"], ["x1"], ["x2"]]
    assert table["estimates"][1]["value"] > 0.5 > -0.5 > table["estimates"][2]["value"]
    assert len(by_the_sites) == 3
    one_sentence(fedround(*asks, "--mean", "x1=-9:9"), "asked alone")
    one_sentence(fedround("ask", "-c", coordinator, "--cox", "x1=0,1 ~ x2=-4:4"), "week=0,13,26 + arrest=1")


HAZARDS = ("--hazards", "x1=-1,0,1 + y=1 ~ x2=-4:4", "--noise", "3", "--steps", "3")


def test_the_preview_of_a_regression_is_of_all_its_rounds_and_what_was_asked_costs_nothing_again(
        fedround: Fedround, coordinator: Path, by_the_sites: list[dict]):
    asks = ("ask", "-c", coordinator, *HAZARDS)
    text = " ".join(fedround(*asks, "--preview", "--records", "900").stdout.split())
    for words in ("3 rounds at noise 3, of which 3 are still to be asked", "log hazard ratios", "one in four"):
        assert words in text, words
    told = json.loads(fedround(*asks, "--preview", "--json").stdout)
    alone = json.loads(fedround("ask", "-c", coordinator, "--count", "--by", "y=0,1", "--noise", "3", "--preview",
                                "--json").stdout)
    assert (told["rounds"], told["expected_error"]) == (3, {})
    assert told["epsilon"] > alone["epsilon"] > 0
    assert not by_the_sites
    assert fedround(*asks).exit_code == 0
    again = json.loads(fedround(*asks, "--preview", "--json").stdout)
    assert (again["rounds"], again["epsilon"]) == (0, 0.0)
    assert again["before"] == again["after"] == told["epsilon"]
    longer = json.loads(fedround(*asks, "--steps", "5", "--preview", "--json").stdout)
    assert longer["rounds"] == 2
    assert "asked before" in fedround(*asks, "--preview").stdout
    plain = ("ask", "-c", coordinator, *WANTED)
    assert fedround(*plain).exit_code == 0
    assert json.loads(fedround(*plain, "--preview", "--json").stdout)["epsilon"] == 0


def test_a_regression_is_a_page_too_with_each_site_and_all_sites_estimates_as_one(
        fedround: Fedround, coordinator: Path, by_the_sites: list[dict], tmp_path: Path):
    for option in (HAZARDS, ("--linear", "x2=-4:4 ~ x1=-4:4", "--noise", "2")):
        told = fedround("ask", "-c", coordinator, *option, "--sites", "--page", tmp_path / "answers.html")
        assert told.exit_code == 0, (told.output, told.exception)
        page = (tmp_path / "answers.html").read_text()
        assert all(f">{who}</th>" in page for who in ("all sites", *NAMES, "sites&#39; estimates, random effects"))
        assert "sites' estimates, random effects" in told.stdout


def test_curves_and_least_squares_are_asked_by_formulas():
    no_more = {"by": "fin=0,1", "where": [], "noise": 4.0, "error": None}
    (curves,) = from_options({"survival": ["week=0,13,26 + arrest=1"]}, **no_more)
    assert (curves.time.edges, curves.event.values) == ((0.0, 13.0, 26.0), (1,))
    (line,) = from_options({"linear": ["bp=50:250 ~ age=0:120 + sex=f"]}, **{**no_more, "by": None})
    assert (line.outcome.column, [one.name for one in line.of]) == ("bp", ["age", "sex is f"])
    with pytest.raises(ContractError, match="expected what is explained"):
        from_options({"linear": ["bp=50:250"]}, **no_more)


def test_the_answers_are_a_page_a_table_and_a_document(fedround: Fedround, coordinator: Path, by_the_sites: list[dict],
                                                       tmp_path: Path):
    asks = ("ask", "-c", coordinator, "--mean", "x1=-9:9", "--by", "y=0,1", "--noise", "2")
    for name in ("answers.html", "answers.csv", "answers.json"):
        told = fedround(*asks, "--sites", "--page", tmp_path / name)
        assert told.exit_code == 0, (told.output, told.exception)
    assert len(by_the_sites) == 1
    page, lines = (tmp_path / "answers.html").read_text(), (tmp_path / "answers.csv").read_text().splitlines()
    assert all(f">{who}</th>" in page for who in ("all sites", *NAMES))
    assert "<script" not in page
    assert lines[0] == "who,table,what,value,low,high"
    assert len(lines) == 1 + 4 * 3 * 3                      # who, groups, numbers
    assert {one["who"] for one in json.loads((tmp_path / "answers.json").read_text())} == {"all sites", *NAMES}
    assert "north" in told.stdout
    one_sentence(fedround(*asks, "--page", tmp_path / "answers.pdf"), ".html, .csv or .json")


def test_who_did_not_answer_is_named(fedround: Fedround, federation: SmallFederation, coordinator: Path):
    (federation.root / "data" / "south" / "train.parquet").unlink()
    concluded(federation, request("study"))
    shown = fedround("ask", "--show", "--as", coordinator)
    assert shown.exit_code == 0, (shown.output, shown.exception)
    text = " ".join(shown.stdout.split())
    assert "counted at 2 of 3 sites" in text
    assert "refused south (data)" in text


def test_without_a_coordinators_process_it_says_so(fedround: Fedround, coordinator: Path):
    one_sentence(fedround("ask", "-c", coordinator, *WANTED), "the Prefect API", "does not answer")


def test_the_certificate_says_what_was_found_and_that_the_sites_said_so(fedround: Fedround, federation: SmallFederation,
                                                                       coordinator: Path):
    federation.round("study")
    concluded(federation, request("study"))
    text = " ".join(fedround("verify", "study", "--as", coordinator).stdout.split())
    for words in ("measure", "(x1)", "(y)", "sites said"):
        assert words in text, words
    rounds = json.loads(fedround("verify", "study", "--as", coordinator, "--json").stdout)["rounds"]
    assert [finding["asked"] for finding in rounds[1]["findings"]] == ["measure"]
    assert rounds[0]["findings"] == []
