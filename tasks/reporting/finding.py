"""The result of a question, as people read it: every cell with its words, its number and how far noise may have moved it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from fedround.records import Finding
from fedround.statistics import Release
from tasks.reporting.markdown import code, table

WIDTH = 1.96
"""The half-width of the interval in standard deviations of the noise: 95 of 100 exact numbers lie in it."""


@dataclass(frozen=True)
class Cell:
    """One cell of a statistic."""

    words: tuple[str, ...]
    """Where it is, a word for each axis."""
    number: float
    """What all sites say together; noise may have made it negative."""
    plus_minus: float
    """How far it is from the exact number at most, in 95 of 100 cases; 0: it is exact."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The cell as a line of a table: its words, the number, and how sure it is."""
        return (*self.words, f"{round(self.number):,}", f"± {round(self.plus_minus):,}" if self.plus_minus else "exact")


@dataclass(frozen=True)
class Table:
    """One statistic of a finding."""

    title: str
    head: tuple[str, ...]
    cells: tuple[Cell, ...]


def tables(totals: Sequence[Release]) -> list[Table]:
    """What a finding says, statistic by statistic."""
    return [_table(release) for release in totals]


def heading(finding: Finding) -> str:
    """Whose numbers these are."""
    asked = len(finding.answers) + len(finding.refusals) + len(finding.rejected) + len(finding.missing)
    return f"Run {finding.run}, round {finding.round}: counted at {len(finding.answers)} of {asked} sites"


def render_finding(finding: Finding) -> str:
    """The finding as markdown for a Prefect artifact. What the question named is shown as code."""
    parts = [f"## {heading(finding)}"]
    for one in tables(finding.totals):
        rows = [[*(code(word) for word in cell.words), *cell.texts[len(cell.words):]] for cell in one.cells]
        parts += [f"### {code(one.title)}", table([code(name) for name in one.head[:-2]] + list(one.head[-2:]), rows)]
    return "\n\n".join(parts) + "\n"


def _table(release: Release) -> Table:
    axes, plus_minus = release.statistic.axes, WIDTH * release.noise_std
    words = itertools.product(*(axis.labels for axis in axes))
    names = tuple(axis.name for axis in axes)
    return Table(f"{release.statistic.in_words}: {', '.join(names)}", (*names, "records", "95 %"),
                 tuple(Cell(place, number, plus_minus) for place, number in zip(words, release.numbers, strict=True)))
