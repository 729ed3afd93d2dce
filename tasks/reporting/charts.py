"""Where things lie in a chart: data in, SVG coordinates out. The drawing itself is in charts.j2."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedround.spoken import one_line
from tasks.reporting.record import Metric, RoundRecord, SiteRow
from tasks.reporting.words import amount, decimals, short, significant, spent

WIDTH, BARS_WIDTH = 480, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 52, 12, 26
_LINE_HEIGHT = 190
_ROW, _LETTER = 22, 6.7


@dataclass(frozen=True)
class Mark:
    """A point, tick or bar's end, with its words."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Line:
    """One metric over the rounds."""

    title: str
    summary: str
    height: int
    path: str
    dots: tuple[Mark, ...]
    last: Mark
    rows: tuple[Mark, ...]
    columns: tuple[Mark, ...]
    width: int = WIDTH


@dataclass(frozen=True)
class Bar:
    """One site's value; `length` is None if it has none."""

    site: str
    name: str
    outcome: str
    y: float
    length: float | None
    text: str


@dataclass(frozen=True)
class Bars:
    """One value per site."""

    title: str
    summary: str
    height: int
    left: float
    bars: tuple[Bar, ...]
    limit: Mark | None
    width: int = BARS_WIDTH


def metric_chart(records: Sequence[RoundRecord], metric: Metric) -> Line:
    """`metric` over the rounds; at least one of `records` must have it."""
    values = [(record.round, value) for record in records if (value := metric.of(record)) is not None]
    rounds, numbers = [number for number, _ in values], [value for _, value in values]
    ticks = nice_ticks(min(numbers), max(numbers))
    first, last = rounds[0], rounds[-1]

    def x(number: int) -> float:
        share = (number - first) / (last - first) if last > first else 0.5
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def y(value: float) -> float:
        share = (value - ticks[0]) / (ticks[-1] - ticks[0])
        return round(_LINE_HEIGHT - _BOTTOM - share * (_LINE_HEIGHT - _BOTTOM - _TOP), 1)

    dots = tuple(Mark(x(number), y(value), f"Round {number}: {decimals(value)}") for number, value in values)
    places = max(2, -math.floor(math.log10(ticks[1] - ticks[0])))
    title = f"{metric.label} by round"
    return Line(
        title=title, height=_LINE_HEIGHT, path="M" + "L".join(f"{dot.x},{dot.y}" for dot in dots),
        summary=f"{title}: {decimals(numbers[0])} in round {first}, {decimals(numbers[-1])} in round {last}; "
                f"lowest {decimals(min(numbers))}, highest {decimals(max(numbers))}.",
        dots=dots if len(dots) <= 40 else dots[-1:], last=Mark(dots[-1].x, dots[-1].y, decimals(numbers[-1])),
        rows=tuple(Mark(_LEFT, y(tick), decimals(tick, places)) for tick in ticks),
        columns=tuple(Mark(x(number), _LINE_HEIGHT - 8, str(number)) for number in round_ticks(rounds)))


def epsilon_chart(record: RoundRecord) -> Bars | None:
    """What every site has spent, against the limit."""
    return _bars("Privacy spent so far (epsilon)", record.sites, [row.epsilon for row in record.sites], spent,
                 limit=record.epsilon_limit)


def norm_chart(record: RoundRecord) -> Bars | None:
    """How long the updates are."""
    return _bars("Length of each update (L2 norm)", record.sites, [row.norm for row in record.sites], significant)


def distance_chart(record: RoundRecord) -> Bars | None:
    """How far the updates lie from the aggregate."""
    return _bars("Distance from the aggregate (L2)", record.sites, [row.distance for row in record.sites],
                 significant)


def influence_chart(record: RoundRecord) -> Bars | None:
    """How much of the aggregate is each site's."""
    return _bars("Share of the aggregate", record.sites, [row.influence for row in record.sites], significant)


def _bars(title: str, sites: Sequence[SiteRow], values: Sequence[float | None],
          words: Callable[[float | None], str], limit: float | None = None) -> Bars | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    names = [short(one_line(row.site), 18) for row in sites]
    left = round(12 + _LETTER * max(len(name) for name in names))
    full = max([*known, limit or 0]) or 1.0
    scale = (BARS_WIDTH - left - _RIGHT) / full
    bars = tuple(
        Bar(site=row.site, name=name, outcome=row.outcome, y=18 + index * _ROW, text=words(value),
            length=None if value is None else round(max(0.0, value) * scale, 1))
        for index, (row, name, value) in enumerate(zip(sites, names, values, strict=True)))
    summary = f"{title}: from {words(min(known))} to {words(max(known))} over {len(known)} sites"
    return Bars(
        title=title, height=18 + _ROW * len(bars) + 6, left=left, bars=bars,
        summary=summary + (f"; limit {amount(limit)}." if limit is not None else "."),
        limit=None if limit is None else Mark(round(left + limit * scale, 1), 12, f"limit {amount(limit)}"))


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers, the first at or below `low` and the last at or above `high`; at least two."""
    if high - low < 0.02:
        low, high = (low + high) / 2 - 0.01, (low + high) / 2 + 0.01
    rough = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [round(index * step, 10) for index in range(first, last + 1)]


def round_ticks(rounds: Sequence[int], most: int = 10) -> list[int]:
    """Rounds to name on the axis: all of them, or every second, fifth, tenth …; always the last."""
    span = rounds[-1] - rounds[0]
    step = next(step for power in range(6) for step in (10**power, 2 * 10**power, 5 * 10**power) if span / step < most)
    named = [number for number in range(rounds[0], rounds[-1] + 1) if number % step == 0]
    return [number for number in named if rounds[-1] - number >= step * 0.7] + [rounds[-1]]
