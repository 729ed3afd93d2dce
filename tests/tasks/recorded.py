"""Records of rounds that nobody ran, and how their pages are read."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

from markdown_it import MarkdownIt

from fedround.aggregation.verdict import Verdict
from fedround.learning.tasks import Metrics
from tasks.reporting import RoundRecord, SiteRow

ATTACK = ("<script>alert(1)</script> \"onload='x' {{ 7 * 7 }} `code` | cell | ![i](http://evil.example/i.png) "
          "[l](javascript:alert(1)) <img src=x onerror=alert(1)> \u202eabc\n\n# heading\n| a | b |\n``` &amp; \\| \\`")


def updated(site: str, **more: object) -> SiteRow:
    return SiteRow(site=site, outcome="updated", note="", weight=400.0,
                   **{"norm": 1.25, "distance": 0.5, "epsilon": 2.0, "local": Metrics(auc=0.71, rows=88), **more})


def refused(note: str, *checks: str) -> SiteRow:
    return SiteRow(site="bank-x", outcome="refused", note=note, weight=100.0, checks=checks)


def record(number: int, *rows: SiteRow, auc: float = 0.7) -> RoundRecord:
    return RoundRecord(
        federation="banks", run="spring", round=number, model="a" * 64, parent="b" * 64, aggregation="weighted_mean",
        optimizer="fedavg", privacy="record level, epsilon <= 5 at delta 1e-05", quorum=2, seconds=1.5,
        public=Metrics(auc=auc, recall_at_20_fpr=0.5, rows=100), sites=rows or (updated("bank-01"), updated("bank-02")),
        epsilon_limit=5.0)


def compared(number: int, *rows: SiteRow, odd: int | None = None) -> RoundRecord:
    """A record with distances: everybody one apart from everybody, and `odd` ten."""
    names = tuple(row.site for row in rows if row.norm is not None)
    apart = tuple(tuple(0.0 if a == b else 10.0 if odd in (a, b) else 1.0 + (a + b) / 100 for b in range(len(names)))
                  for a in range(len(names)))
    return with_(record(number, *rows), near=names, distances=apart)


def with_(record: RoundRecord, **changes: object) -> RoundRecord:
    """A record that says something else, judged anew."""
    return RoundRecord(**{**dict(record), **changes})


def left_out(site: str) -> SiteRow:
    return SiteRow(site=site, outcome="left_out", note="goes with 3 others more than noise can", weight=1.0,
                   verdict=Verdict.GATE, norm=8.0, distance=9.0, influence=0.0)


def unasked(site: str, weight: float = 400.0) -> SiteRow:
    return SiteRow(site=site, outcome="excluded", note="not selected for this round", weight=weight)


def planted(odd: int = 4) -> RoundRecord:
    rows = [left_out(f"bank-{index}") if index == odd else updated(f"bank-{index}", influence=1 / 11) for index in range(12)]
    return compared(2, *rows, odd=odd)


class Page(HTMLParser):
    """The tags of a page, in order, and its text."""

    void = ("meta", "br", "img", "link")

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def svgs(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]


def shape(markdown: str) -> list[object]:
    """How a markdown reader sees it, without the words."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown)
    return [(token.type, [child.type for child in token.children or ()]) for token in tokens]
