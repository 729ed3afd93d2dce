"""The folder of pages: every link leads to a page that is there, and the index names every run."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote

from tasks import pages
from tasks.reporting import RoundRecord
from tests.tasks.recorded import Page, record, with_

BEGUN = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)


def dated(number: int, run: str = "spring", days: int = 0) -> RoundRecord:
    return with_(record(number), run=run, ended=BEGUN + timedelta(days=days, hours=number))


def links(page: Path) -> dict[str, Path]:
    """Where a page leads, by the words of each link."""
    found = re.findall(r'<a [^>]*?href="([^"]+)">([^<]*)</a>', page.read_text())
    return {words: (page.parent / unquote(address)).resolve() for address, words in found if not address.startswith("data:")}


def test_every_page_leads_to_its_neighbours_to_the_index_and_to_nothing_that_is_not_there(tmp_path: Path):
    for number in (1, 2, 4):            # 3 has no record: it is damaged, or not written yet
        pages.write(tmp_path, dated(number))
    first, second, last = (tmp_path / "spring" / f"{number:05d}.html" for number in (1, 2, 4))
    assert links(first) == {"All runs": tmp_path / "index.html", "Round 2 →": second}
    assert links(second) == {"All runs": tmp_path / "index.html", "← Round 1": first, "Round 4 →": last, "1": first}
    assert links(last) == {"All runs": tmp_path / "index.html", "← Round 2": second, "1": first, "2": second}
    assert links(tmp_path / "index.html") == {"spring": last}
    assert all(target.exists() for page in tmp_path.rglob("*.html") for target in links(page).values())


def test_a_round_that_is_written_late_stands_between_its_neighbours(tmp_path: Path):
    for number in (1, 3, 2):
        pages.write(tmp_path, dated(number))
    assert links(tmp_path / "spring" / "00001.html")["Round 2 →"].name == "00002.html"
    assert links(tmp_path / "spring" / "00002.html")["Round 3 →"].name == "00003.html"


def test_the_index_has_every_run_the_newest_first_with_what_its_last_round_says(tmp_path: Path):
    for one in (dated(1), dated(2), dated(1, "autumn", days=9), with_(record(7, auc=0.81), run="of-old")):
        pages.write(tmp_path, one)
    text = " ".join(Page((tmp_path / "index.html").read_text().replace("</td>", "</td> ")).text.split())
    assert "3 runs" in text
    assert re.findall("autumn|spring|of-old", text) == ["autumn", "spring", "of-old"]
    assert "spring 2, 2026-03-02 01:30 UTC 2 2 / 2 AUC 0.700 2.00 of 5" in text
    assert "of-old 7 1 2 / 2 AUC 0.810" in text


def test_a_page_says_when_its_round_was_committed_in_one_zone_for_everybody(tmp_path: Path):
    pages.write(tmp_path, with_(record(1), ended=datetime.fromisoformat("2026-03-02T01:30:00+02:00")))
    assert pages.records(tmp_path, "spring")[0].ended == BEGUN
    assert "2026-03-01 23:30 UTC" in (tmp_path / "spring" / "00001.html").read_text()


def test_a_damaged_record_takes_no_page_of_another_with_it(tmp_path: Path):
    pages.write(tmp_path, dated(1))
    (tmp_path / "spring" / "00002.json").write_text("{")
    pages.write(tmp_path, dated(1, "autumn"))
    assert links(tmp_path / "index.html")["spring"].name == "00001.html"
