"""Answers as a page that opens offline: every table, all sites beside each site, and a plot of what all say together."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from fedround.analytics.estimates import Table
from fedround.records import Finding
from tasks.reporting.finding import as_csv, head, heading, texts
from tasks.reporting.gap_plot import Plot
from tasks.reporting.page import template
from tasks.reporting.so_far import download
from tasks.reporting.whisker_plot import around

_MOST_DRAWN = 60


@dataclass(frozen=True)
class Row:
    """One line of a table: its words, and what each says of it."""

    words: tuple[str, ...]
    numbers: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Section:
    """One table of the answers."""

    table: Table
    head: tuple[str, ...]
    who: tuple[str, ...]
    rows: tuple[Row, ...]
    plot: Plot | None


def render_answers(title: str, finding: Finding, by_whom: Mapping[str, Sequence[Table]]) -> str:
    """The page. by_whom: all sites together first, then each site. Same answers, same bytes."""
    name = f"{finding.federation}-{finding.run}-answers"
    files = (download("All numbers (CSV)", f"{name}.csv", "text/csv", as_csv(by_whom)),
             download("All numbers (JSON)", f"{name}.json", "application/json", json.dumps(as_json(by_whom), indent=1)))
    return template("answers.html.j2").render(title=title, finding=finding, heading=heading(finding), downloads=files,
                                              sections=_sections(by_whom))


def as_json(by_whom: Mapping[str, Sequence[Table]]) -> list[dict[str, object]]:
    """All tables; a number that the noise leaves nothing of is null."""
    return [{"who": who, **asdict(one), "estimates": [
        {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in asdict(estimate).items()}
        for estimate in one.estimates]} for who, found in by_whom.items() for one in found]


def _sections(by_whom: Mapping[str, Sequence[Table]]) -> list[Section]:
    """Tables of all sites; a site's number stands in the row with the same words, if there is one."""
    who = tuple(by_whom)
    first, *others = by_whom.values()
    found = []
    for place, table in enumerate(first):
        beside = [{estimate.words: texts(estimate)[-2:] for estimate in one[place].estimates} for one in (first, *others)]
        rows = tuple(Row(estimate.words, tuple(_two(one.get(estimate.words)) for one in beside))
                     for estimate in table.estimates)
        found.append(Section(table, head(table), who, rows, _plot(table)))
    return found


def _two(said: tuple[str, ...] | None) -> tuple[str, str]:
    return ("–", "not told") if said is None else (said[0], said[1])


def _plot(table: Table) -> Plot | None:
    drawn = [one for one in table.estimates if math.isfinite(one.value)][:_MOST_DRAWN]
    if table.plot == "none" or not drawn:
        return None
    return around(table.head[-1], [(", ".join(one.words), one.value, one.low, one.high, ", ".join(texts(one)[-2:]))
                                   for one in drawn])
