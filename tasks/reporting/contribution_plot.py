"""Contributions as a plot: a dot with its interval for each. Data in, SVG coordinates out; contribution.html.j2 draws."""

from __future__ import annotations

from dataclasses import dataclass

from fedround.contribution.said import Contribution
from fedround.spoken import one_line
from tasks.reporting.charts import nice_ticks
from tasks.reporting.contribution import added, interval
from tasks.reporting.gap_plot import WIDTH, Plot, Whisker
from tasks.reporting.words import short

_LEFT, _RIGHT, _TOP, _ROW, _BOTTOM = 150, 20, 8, 26, 24


@dataclass(frozen=True)
class Around(Plot):
    """With a line where nothing is added."""

    zero: float = 0.0


def contribution_plot(said: Contribution) -> Around:
    """Every site's value, in the order of the commit."""
    ends = [number for one in said.sites for number in (one.value, one.low, one.high) if number is not None]
    named = nice_ticks(min([0.0, *ends]), max([0.0, *ends]))
    first, last = named[0], named[-1]

    def place(number: float) -> float:
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * (number - first) / (last - first), 1)

    whiskers = tuple(Whisker(
        short(one_line(one.site), 18), f"{one.site}: {added(one.value)} ({interval(one.low, one.high) or 'no interval'})",
        _TOP + _ROW * (row + 0.5), place(one.value if one.low is None else one.low), place(one.value),
        place(one.value if one.high is None else one.high)) for row, one in enumerate(said.sites))
    return Around("What each site added", "; ".join(one.text for one in whiskers), _TOP + _ROW * len(whiskers) + _BOTTOM,
                  _LEFT, whiskers, tuple((place(tick), f"{tick:g}") for tick in named), zero=place(0.0))
