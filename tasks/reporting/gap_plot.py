"""Gaps between groups as a plot: a dot with its interval for each, data in, SVG coordinates out. Drawn by groups.html.j2."""

from __future__ import annotations

from dataclasses import dataclass

from fedround.fairness_of_groups import GroupFairness, Measure
from fedround.spoken import one_line
from tasks.reporting.charts import nice_ticks
from tasks.reporting.words import short

WIDTH = 480
_LEFT, _RIGHT, _TOP, _ROW, _BOTTOM = 150, 16, 8, 26, 24


@dataclass(frozen=True)
class Whisker:
    """One gap."""

    name: str
    text: str
    y: float
    low: float
    dot: float
    high: float


@dataclass(frozen=True)
class Plot:
    """All gaps by one measure, or other values with their intervals."""

    title: str
    summary: str
    height: int
    left: float
    whiskers: tuple[Whisker, ...]
    ticks: tuple[tuple[float, str], ...]
    width: int = WIDTH
    zero: float | None = None
    """Where a line marks nothing."""


def gap_plots(found: GroupFairness, titles: dict[Measure, str]) -> list[Plot]:
    """A plot for each measure, all from 0 to the same end."""
    named = nice_ticks(0.0, max([0.1, *(one.high for one in found.gaps)]))
    end = named[-1]

    def place(gap: float) -> float:
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * gap / end, 1)

    plots = []
    for measure, title in titles.items():
        gaps = [one for one in found.gaps if one.measure == measure]
        whiskers = tuple(Whisker(
            short(one_line(one.attribute), 18), f"{one.attribute}: {one}, {one.groups[0]} < {one.groups[1]}",
            _TOP + _ROW * (row + 0.5), place(one.low), place(one.value), place(one.high)) for row, one in enumerate(gaps))
        if whiskers:
            summary = "; ".join(one_line(one.text) for one in whiskers)
            ticks = tuple((place(tick), f"{tick:g}") for tick in named)
            plots.append(Plot(title, summary, _TOP + _ROW * len(whiskers) + _BOTTOM, _LEFT, whiskers, ticks))
    return plots
