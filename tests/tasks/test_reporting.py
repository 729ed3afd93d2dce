"""A report says what happened, opens offline, and shows a site's words without obeying them."""

import base64
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fedround.aggregation.verdict import Verdict
from fedround.errors import ContractError
from fedround.learning.tasks import Margin, Metrics
from fedround.values import parse
from tasks.reporting import RoundRecord, SiteRow, page, render_html, render_markdown
from tasks.reporting.participation import participation
from tasks.reporting.record import Beside, metrics_of
from tasks.reporting.words import fault, label
from tests.tasks.recorded import ATTACK, Page, compared, left_out, record, refused, shape, svgs, unasked, updated, with_

# -- foreign words are shown, never obeyed -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def harmless() -> tuple[object, object]:
    """How a page and its Markdown are built where a site says a harmless word."""
    one = record(1, refused("x", "x"))
    return Page(render_html([one])).tags, shape(render_markdown([one]))


@settings(max_examples=60)
@given(words=st.text(min_size=1, max_size=80).filter(str.strip))
def test_no_words_of_a_site_change_the_structure_of_a_report(words, harmless):
    foreign = record(1, refused(words, words))
    assert (Page(render_html([foreign])).tags, shape(render_markdown([foreign]))) == harmless


def test_attack_markup_in_a_refusal_is_text():
    row = refused(ATTACK, ATTACK).model_copy(update={"site": ATTACK})
    html, markdown = render_html([record(1, row)]), render_markdown([record(1, row)])
    page = Page(html)
    assert "script" not in dict(page.tags)
    assert "img" not in dict(page.tags)
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "\u202e" not in html + markdown
    plain = record(1, refused("x", "x").model_copy(update={"site": "x"}))
    assert page.tags == Page(render_html([plain])).tags
    assert shape(markdown) == shape(render_markdown([plain]))


def test_the_page_needs_no_network_and_forbids_it():
    html = render_html([record(1)])
    assert "default-src 'none'" in html
    assert set(re.findall(r"https?://[^\"' <]+", html)) == {"http://www.w3.org/2000/svg"}     # a name, not an address
    assert not {"script", "link", "iframe", "img"} & {tag for tag, _ in Page(html).tags}


# -- it says what happened ---------------------------------------------------------------------------------------------


def test_the_page_tells_outcomes_reasons_checks_and_provenance():
    missing = SiteRow(site="bank-y", outcome="missing", note="no answer before the deadline", weight=1.0)
    rejected = SiteRow(site="bank-z", outcome="rejected", note="the norm is above the cap", weight=1.0)
    last = record(3, updated("bank-01"), refused("rows do not meet the contract", "age.range"), missing, rejected)
    text = " ".join(Page(render_html([record(1, auc=0.65), last])).text.split())
    for words in ("Round 3 reached AUC 0.700 with 1 of 4 sites", "quorum of 2 was not met", "+0.050 since round 1",
                  "rows do not meet the contract", "failed checks: age.range", "no answer before the deadline",
                  "the norm is above the cap", "a" * 64, "b" * 64, "record level, epsilon <= 5 at delta 1e-05"):
        assert words in text


@pytest.mark.parametrize(("updates", "says"), [(1, "1 update was aggregated"), (2, "2 updates were aggregated")])
def test_one_update_was_and_several_were_aggregated(updates: int, says: str):
    assert says in " ".join(Page(render_html([record(1, *(updated(f"bank-{at}") for at in range(updates)))])).text.split())


def test_no_template_hopes_for_a_space_at_the_end_of_its_words():
    """`_foreign` takes it away: "1 updatewas aggregated"."""
    templates = {path.name: path.read_text() for path in Path(page.__file__).parent.glob("*.j2")}
    assert len(templates) > 8
    hoped = re.compile(r'\{\{ *"(?: [^"]*|[^"]* )" *(?:if|\}\})')
    assert {name: found for name, text in templates.items() if (found := hoped.findall(text))} == {}


def test_a_share_that_is_not_known_is_a_cell_with_a_colour():
    page = render_html([record(number, updated("a")) for number in (1, 2)])
    assert 'class="cell updated"' in page
    assert ".cell.updated {" in page


def test_who_was_left_out_by_the_aggregation_counts_for_the_quorum():
    """The quorum counts who was admitted, as the round itself does."""
    text = " ".join(Page(render_html([record(3, updated("bank-01"), left_out("bank-02"))])).text.split())
    assert "with 1 of 2 sites" in text
    assert "quorum of 2 was met" in text


def test_who_took_part_and_what_asking_only_some_did_stands_on_the_page_and_in_prefect():
    """North and south weigh 400 each; south was asked in one round of two: 3/4 of the weight lay with north, 1/4 too much."""
    rounds = [record(1, updated("north", influence=1.0), unasked("south")),
              record(2, updated("north", influence=0.5), updated("south", influence=0.5))]
    found = participation(rounds)
    assert found is not None
    assert [(part.site, part.asked, part.used, part.agreed, part.weight) for part in found.parts] == [
        ("north", 2, 2, 0.5, 0.75), ("south", 1, 1, 0.5, 0.25)]
    assert (found.moved, found.by_asking) == (0.25, 0.25)
    for shown in (Page(render_html(rounds)).text, render_markdown(rounds)):
        assert "25% of the weight in the models so far" in shown
        assert "1 / 2" in shown
    assert participation(rounds[1:]) is None
    assert "Who took part" not in render_html(rounds[1:])


def test_the_page_names_who_is_not_asked_and_why():
    out = SiteRow(site="bank-9", outcome="excluded", weight=1.0,
                  note="left out of 2 of the last 4 rounds: 2 × gate; asked again in round 7")
    rounds = [record(1, updated("bank-01"), out)]
    text = " ".join(Page(render_html(rounds)).text.split())
    assert "Not asked: bank-9" in text
    assert "asked again in round 7" in text
    assert "asked again in round 7" in render_markdown(rounds)


def test_the_page_shows_what_a_model_was_compared_with_and_obeys_no_name():
    others = (Beside(what="the federation without bank-01, simulated, private", test=Metrics(auc=0.78, rows=100),
                     privacy="the same"), Beside(what=ATTACK, test=Metrics(rows=100), privacy="none"))
    html = render_html([with_(record(3, updated("bank-01"), left_out("bank-02")), beside=others)])
    text = " ".join(Page(html).text.split())
    assert "This round's model reached AUC 0.700." in text
    for cell in ("the federation without bank-01, simulated, private", "0.780", "the same"):
        assert cell in text
    assert "<script>" not in html


def test_a_warning_of_the_contract_is_shown_beside_the_site_that_was_used_and_the_contract_says_what_only_warns():
    warned = with_(record(1, updated("bank-01", checks=("age.range",))), contract="'banks', 9 checks, of which 1 warns: a")
    text = " ".join(Page(render_html([warned])).text.split())
    assert "in the aggregate warnings of the data contract: age.range" in text
    assert "Data contract'banks', 9 checks, of which 1 warns: a" in text
    assert "failed checks" not in text
    assert "`'banks', 9 checks, of which 1 warns: a`" in render_markdown([warned])


def test_every_chart_has_a_title_a_description_and_stays_inside_its_frame():
    rows = [updated(f"bank-{index}", epsilon=5.0 + index, norm=10.0**index, influence=index / 66) for index in range(12)]
    rounds = [record(number, *rows, auc=0.5 + number / 300) for number in range(1, 61)]
    charts = svgs(render_html([*rounds, compared(61, *rows)]))
    assert len(charts) == 9 + 12
    for chart in charts:
        _, _, width, height = map(float, chart.get("viewBox").split())
        title, description = chart[0], chart[1]
        assert title.text
        assert description.text
        assert chart.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
        for part in chart.iter():
            for name in ("x", "cx", "x1", "x2", "y", "cy", "y1", "y2"):
                assert 0 <= float(part.get(name, 0)) <= (width if "x" in name else height)
            assert float(part.get("x", 0)) + float(part.get("width", 0)) <= width or part is chart
    assert len({chart[0].get("id") for chart in charts}) == 9 + 12


def test_what_is_not_known_is_a_dash_and_no_chart():
    bare = SiteRow(site="bank-01", outcome="updated", note="", weight=1.0)
    html = render_html([with_(record(1, bare), public=None, epsilon_limit=None)])
    assert svgs(html) == []
    assert "None" not in html
    assert "Round 1 with 1 of 1 sites" in " ".join(Page(html).text.split())
    assert "No metric has been measured yet." in render_markdown([with_(record(1, bare), public=None)])


def test_markdown_holds_the_tables_and_plots_that_open():
    markdown = render_markdown([record(1, auc=0.65), record(2, refused("no budget left", "age.range"))])
    assert "| 2 | 0 / 1 | 0.700 | 0.500 | – | 1.5 |" in markdown
    assert "| `bank-x` | – refused | 100 | – | – | – | `no budget left`, `age.range` |" in markdown
    plots = re.findall(r"!\[(.*?)\]\(data:image/svg\+xml;base64,(.*?)\)", markdown)
    assert [text.split(":")[0] for text, _ in plots] == ["AUC by round", "Recall at 20 % false positives by round"]
    for text, data in plots:
        assert "in round 1" in text
        assert ElementTree.fromstring(base64.b64decode(data)).tag.endswith("svg")
    places = [markdown.index(part) for part in ("### Sites in round 2", "### Rounds", "![AUC by round")]
    assert places == sorted(places), "tables first"


def test_one_round_is_said_and_not_drawn():
    """A chart of one point shows nothing; what ± means is said all the same."""
    one = with_(record(1), at_sites=Metrics(auc=0.61, rows=90), at_sites_margin=Margin(auc=0.05))
    page, markdown = " ".join(Page(render_html([one])).text.split()), render_markdown([one])
    for absent, text in [("data:image", markdown), ("The campaign so far", page)]:
        assert absent not in text
    for text in (page, markdown):
        assert re.search(r"0\.610\s*± 0\.05", text), text
        assert "95 of 100 repeats" in text


def test_same_records_same_bytes():
    rounds = [record(1), record(2)]
    assert render_html(rounds) == render_html(rounds)
    assert render_markdown(rounds) == render_markdown(rounds)


def test_records_of_no_run_two_runs_or_out_of_order_are_refused():
    for rounds, words in [([], "at least one"), ([record(2), record(1)], "ascend"), ([record(1), record(1)], "ascend"),
                          ([record(1), with_(record(2), run="autumn")], "one run")]:
        for render in (render_html, render_markdown):
            with pytest.raises(ContractError, match=words):
                render(rounds)


def test_numbers_that_are_not_finite_are_refused_by_name():
    with pytest.raises(ValidationError, match=r"norm\n.*finite"):
        updated("bank-01", norm=float("nan"))
    with pytest.raises(ValidationError, match=r"auc\n.*finite"):
        record(1, auc=float("inf"))


def test_a_record_comes_back_from_its_json_as_it_was():
    full = with_(compared(3, updated("a"), left_out("b"), refused("no", "age.range")), at_sites=Metrics(auc=0.6, rows=90))
    assert parse(RoundRecord, full.model_dump_json(), "record") == full


# -- metrics have the task's words, in two places ------------------------------------------------------------------------


def test_what_the_sites_found_is_a_chart_and_a_column_of_its_own():
    rounds = [with_(record(1), at_sites=Metrics(auc=0.61, rows=90)), with_(record(2), at_sites=Metrics(auc=0.63, rows=90))]
    assert [metric.label for metric in metrics_of(rounds)] == [
        "AUC", "Recall at 20 % false positives", "AUC at the sites, noised"]
    text = " ".join(Page(render_html(rounds)).text.split())
    assert "AUC at the sites, noised by round" in text
    assert "AUC at the sites, noised by round: 0.610 in round 1, 0.630 in round 2" in render_markdown(rounds)
    assert "| 1 | 2 / 2 | 0.700 | 0.500 | 0.610 | 2.00 | 1.5 |" in render_markdown(rounds)


def test_of_more_than_two_classes_the_page_tells_the_accuracy():
    rows = [updated("bank-01").model_copy(update={"local": Metrics(accuracy=0.81, rows=40)})]
    text = " ".join(Page(render_html([with_(record(1, *rows), public=Metrics(accuracy=0.83, rows=100))])).text.split())
    assert "Round 1 reached accuracy 0.830" in text
    assert "Local accuracy" in text
    assert "AUC" not in text


def test_words_of_metrics_and_of_faults_are_two_tables():
    """A metric that is called noise is not somebody's noise."""
    assert (label("noise"), fault(Verdict.NOISE)) == ("Noise", "its noise")
    assert {fault(verdict) for verdict in Verdict if verdict is not Verdict.USED} == {
        "numbers that are not finite", "its norm", "the gate", "its noise", "too few of its model"}
    row = left_out("bank-x").model_copy(update={"verdict": Verdict.NOISE})
    assert "left out: its noise" in " ".join(Page(render_html([record(1, row)])).text.split())


def test_a_page_loads_no_heavy_library():
    """It is written after each round: plots are drawn by templates, and a library for them would cost seconds."""
    child = ("import sys; from tasks.reporting import render_html; from tests.tasks.recorded import record; "
             "render_html([record(1), record(2)]); "
             "print(*sorted({'matplotlib', 'plotly', 'altair', 'pandas', 'torch', 'scipy', 'prefect'} & sys.modules.keys()))")
    ended = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == ""
