"""The result of a question, as people read it: every number with its words, and how far noise may have moved it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fedround.analytics.estimates import Estimate, Table
from fedround.analytics.readings import read
from fedround.records import Finding
from fedround.statistics import Release
from tasks.reporting.markdown import code, table
from tasks.reporting.so_far import csv_of


def tables(totals: Sequence[Release]) -> list[Table]:
    """What a finding says, statistic by statistic."""
    return [one for release in totals for one in read(release)]


NOTHING = "too little to say"
"""Of a number of which noise leaves nothing, or that too few records have."""


def texts(one: Estimate) -> tuple[str, ...]:
    """An estimate as a line of a table: its words, the number, and between which numbers it lies without noise."""
    half = (one.high - one.low) / 2
    if math.isnan(one.value):
        return *one.words, "–", NOTHING
    if half == 0:
        return *one.words, f"{one.value:,.6g}", "exact"
    return *one.words, _written(one.value, half), f"{_written(one.low, half)} to {_written(one.high, half)}"


def head(one: Table) -> tuple[str, ...]:
    """Of the columns that `texts` fills."""
    return *one.head, "95 %"


def heading(finding: Finding) -> str:
    """Whose numbers these are."""
    asked = len(finding.answers) + len(finding.refusals) + len(finding.rejected) + len(finding.missing)
    return f"Run {finding.run}, round {finding.round}: counted at {len(finding.answers)} of {asked} sites"


def render_finding(finding: Finding) -> str:
    """The finding as markdown for a Prefect artifact. What the question named is shown as code."""
    parts = [f"## {heading(finding)}"]
    for one in tables(finding.totals):
        rows = [[*(code(word) for word in said[:-2]), *said[-2:]] for said in map(texts, one.estimates)]
        parts += [f"### {code(one.title)}", table([code(name) for name in one.head[:-1]] + list(head(one)[-2:]), rows)]
    return "\n\n".join(parts) + "\n"


def as_csv(by_whom: Mapping[str, Sequence[Table]]) -> str:
    """All numbers, one a line: who says it, the table, the words, the value and its interval."""
    return csv_of([["who", "table", "what", "value", "low", "high"], *(
        [who, one.title, " | ".join(estimate.words), *(None if math.isnan(x) else x for x in (
            estimate.value, estimate.low, estimate.high))]
        for who, found in by_whom.items() for one in found for estimate in one.estimates)])


def _written(value: float, half: float) -> str:
    """With as many digits as the noise leaves meaning to."""
    places = max(0, 1 - math.floor(math.log10(half)))
    return f"{round(value, places) + 0.0:,.{min(places, 9)}f}"
