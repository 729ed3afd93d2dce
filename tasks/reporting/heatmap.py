"""Two maps of the sites: how far apart their updates are, and what became of each over the rounds.

Data in, SVG coordinates out; the drawing itself is in charts.j2. Colours run from dark to light as in cividis (Nuñez et al.
2018), which is read alike with and without colour blindness; whatever a colour says, a sign or a word says too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedround.spoken import one_line
from tasks.reporting.record import RoundRecord, SiteRow
from tasks.reporting.words import SIGNS, short, significant

MOST_SITES, MOST_ROUNDS = 100, 30
NARROWEST, WIDEST = 470, 640
_LETTER, _CELL = 6.7, 30
_TITLED = 40            # sites whose cells tell their numbers to the mouse: above, the page would grow by megabytes
_SCALE = ("#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838")
_SIGNS = {**SIGNS, "updated": ""}


@dataclass(frozen=True)
class Cell:
    """One square. `fill` is None where the page's style decides."""

    x: float
    y: float
    fill: str | None
    kind: str
    sign: str
    text: str
    """For the mouse; empty on large maps."""


@dataclass(frozen=True)
class Name:
    """A site's or a round's label; `mark` is the sign of what became of it."""

    x: float
    y: float
    text: str
    mark: str = ""


@dataclass(frozen=True)
class Step:
    """One step of the legend."""

    x: float
    fill: str


@dataclass(frozen=True)
class Map:
    """Squares with labels on two sides."""

    title: str
    summary: str
    height: float
    size: float
    cells: tuple[Cell, ...]
    rows: tuple[Name, ...]
    columns: tuple[Name, ...]
    legend: tuple[Step, ...]
    low: str
    high: str
    left: float
    width: float


def distance_map(record: RoundRecord) -> Map | None:
    """Pairwise distances, similar sites side by side, the odd ones last; None for fewer than three sites."""
    if not 3 <= len(record.near) <= MOST_SITES:
        return None
    order = by_similarity(record.distances)
    names = [record.near[at] for at in order]
    apart = [[record.distances[row][column] for column in order] for row in order]
    between = [value for row, values in enumerate(apart) for column, value in enumerate(values) if row != column]
    low, high = min(between), max(between)
    left, top, size = _left(names), 8, _size(names)

    def ratio(distance: float) -> float:
        # One who is far off must not make all others look alike; copies of an update lie 0 apart.
        return math.log(max(distance, high / 1000, 1e-300))

    cells = tuple(
        Cell(left + column * size, top + row * size,
             None if row == column else _colour(ratio(value), ratio(low), ratio(high)),
             "self" if row == column else "", "",
             f"{one_line(names[row])} and {one_line(names[column])}: {significant(value)}" if len(names) <= _TITLED else "")
        for row, values in enumerate(apart) for column, value in enumerate(values))
    bottom = top + size * len(names)
    outcome = {row.site: row.outcome for row in record.sites}
    estimated = " (estimated from a sample of the model)" if record.estimated else ""
    return Map(
        title=f"Distance between updates, similar sites side by side{estimated}",
        summary=f"Distances between the updates of {len(names)} sites: from {significant(low)} to {significant(high)}"
                f"{estimated}. Farthest from the others: {one_line(names[-1])}.",
        width=_width(left + size * len(names)), height=bottom + 58, size=size, cells=cells, left=left,
        rows=tuple(Name(left - 8, top + (at + 0.5) * size + 4, short(one_line(name), 18),
                        _SIGNS[outcome.get(name, "updated")]) for at, name in enumerate(names)),
        columns=tuple(Name(left + (at + 0.5) * size, bottom + 15, str(at + 1)) for at in _few(len(names))),
        legend=tuple(Step(left + at * 16, fill) for at, fill in enumerate(_SCALE)),
        low=f"near, {significant(low)}", high=f"far, {significant(high)}")


def history_map(records: Sequence[RoundRecord]) -> Map | None:
    """What became of every site in the last rounds, and how much of the aggregate was its; None for a single round."""
    shown = records[-MOST_ROUNDS:]
    sites = [row.site for row in shown[-1].sites]
    if len(shown) < 2 or len(sites) > MOST_SITES:
        return None
    most = max([row.influence or 0.0 for record in shown for row in record.sites], default=0.0) or 1.0
    left, top = _left(sites), 8
    size = round(min(_CELL, (WIDEST - left - 12) / len(shown)), 2)
    cells = []
    for column, record in enumerate(shown):
        rows = {row.site: row for row in record.sites}
        cells += [_past_cell(rows.get(site), record.round, left + column * size, top + at * size, most)
                  for at, site in enumerate(sites)]
    bottom = top + size * len(sites)
    faults = {site: sum(row.outcome == "left_out" for record in records for row in record.sites if row.site == site)
              for site in sites}
    worst = max(sites, key=lambda site: faults[site])
    return Map(
        title="What became of each site, by round",
        summary=f"Rounds {shown[0].round} to {shown[-1].round}. " + (
            f"Left out most often: {one_line(worst)}, {faults[worst]} times." if faults[worst] else "Nobody was left out."),
        width=_width(left + size * len(shown)), height=bottom + 58, size=size, cells=tuple(cells), left=left,
        rows=tuple(Name(left - 8, top + (at + 0.5) * size + 4, short(one_line(site), 18),
                        f"{faults[site]}×" if faults[site] else "") for at, site in enumerate(sites)),
        columns=tuple(Name(left + (at + 0.5) * size, bottom + 15, str(shown[at].round)) for at in _few(len(shown))),
        legend=tuple(Step(left + at * 16, fill) for at, fill in enumerate(reversed(_SCALE))),
        low="share 0", high=f"share {significant(most)}")


def by_similarity(distances: Sequence[Sequence[float]]) -> list[int]:
    """An order in which neighbours are alike (average linkage, optimal leaf order); the end that is farther off is last."""
    import numpy as np
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    apart_NN = np.asarray(distances, dtype=np.float64)
    condensed = squareform((apart_NN + apart_NN.T) / 2, checks=False)
    order = [int(at) for at in leaves_list(optimal_leaf_ordering(linkage(condensed, "average"), condensed))]
    off = apart_NN.sum(axis=1)
    return order if off[order[-1]] >= off[order[0]] else order[::-1]


def _past_cell(row: SiteRow | None, number: int, x: float, y: float, most: float) -> Cell:
    if row is None:
        return Cell(x, y, None, "absent", "", "")
    words = f"round {number}, {one_line(row.site)}: {row.outcome.replace('_', ' ')}"
    if row.outcome != "updated" or row.influence is None:
        return Cell(x, y, None, row.outcome, _SIGNS[row.outcome], words + (f", {one_line(row.note)}" if row.note else ""))
    return Cell(x, y, _colour(most - row.influence, 0.0, most), "", "", f"{words}, share {significant(row.influence)}")


def _colour(value: float, low: float, high: float) -> str:
    share = (value - low) / (high - low) if high > low else 0.0
    return _SCALE[min(len(_SCALE) - 1, max(0, int(share * len(_SCALE))))]


def _width(right: float) -> float:
    return max(NARROWEST, right + 12)


def _left(names: Sequence[str]) -> float:
    return round(46 + _LETTER * max(len(short(one_line(name), 18)) for name in names))


def _size(names: Sequence[str]) -> float:
    return round(min(_CELL, (WIDEST - _left(names) - 12) / len(names)), 2)


def _few(count: int, most: int = 20) -> list[int]:
    """Which labels to write: all, or every second, fifth, …"""
    step = next(step for step in (1, 2, 5, 10, 20, 50) if count / step <= most)
    return list(range(0, count, step))
