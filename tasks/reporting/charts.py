"""Where things lie in a chart: data in, SVG coordinates out. The drawing itself is in charts.j2."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedround.spoken import how_many, one_line
from tasks.reporting.record import Metric, RoundRecord, SiteRow, local
from tasks.reporting.words import amount, decimals, short, significant, spent, with_margin

WIDTH, BARS_WIDTH = 480, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 52, 12, 26
_LINE_HEIGHT = 190
_ROW, _LETTER = 22, 6.7
MOST_CURVES = 30


@dataclass(frozen=True)
class Mark:
    """A point, tick or bar's end, with its words."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Point:
    """A value in a round, and how far noise may have moved it; None: it is not noised."""

    round: int
    value: float
    margin: float | None = None

    @property
    def low(self) -> float:
        """The lower end of its bar."""
        return self.value - (self.margin or 0.0)

    @property
    def high(self) -> float:
        """The upper end of its bar."""
        return self.value + (self.margin or 0.0)


@dataclass(frozen=True)
class Line:
    """One metric over the rounds."""

    title: str
    summary: str
    height: int
    path: str
    spans: str
    """The bars, as one path; empty: nothing is noised."""
    dots: tuple[Mark, ...]
    last: Mark
    rows: tuple[Mark, ...]
    columns: tuple[Mark, ...]
    limit: Mark | None
    """Where a horizontal line ends, with its words."""
    width: int
    left: int = _LEFT
    right: int = _RIGHT
    """How far the axes are from the picture's sides."""


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


def metric_charts(records: Sequence[RoundRecord], metrics: Sequence[Metric]) -> list[Line]:
    """Each of the metrics over the rounds, with its margins, if two rounds know it: one number is said, not drawn."""
    found = [(metric, points_of(records, metric)) for metric in metrics]
    return [line(f"{metric.label} by round", points) for metric, points in found if len(points) > 1]


def points_of(records: Sequence[RoundRecord], metric: Metric) -> list[Point]:
    """The rounds in which the metric is known."""
    return [Point(record.round, value, metric.margin(record)) for record in records
            if (value := metric.of(record)) is not None]


def line(title: str, points: Sequence[Point], around: Sequence[Point] = (), *, limit: float | None = None,
         words: Callable[[float | None], str] = decimals, width: int = WIDTH) -> Line:
    """Values over rounds, at least one. around: what else the axes have room for. words: how a value is written."""
    everything = (*points, *around)
    ticks = nice_ticks(min(one.low for one in everything), max(one.high for one in everything))
    rounds, numbers = [one.round for one in points], [one.value for one in points]
    first, last = min(one.round for one in everything), max(one.round for one in everything)

    def x(number: int) -> float:
        share = (number - first) / (last - first) if last > first else 0.5
        return round(_LEFT + share * (width - _LEFT - _RIGHT), 1)

    def y(value: float) -> float:
        share = (value - ticks[0]) / (ticks[-1] - ticks[0])
        return round(_LINE_HEIGHT - _BOTTOM - share * (_LINE_HEIGHT - _BOTTOM - _TOP), 1)

    def said(one: Point) -> str:
        return words(one.value) if one.margin is None else with_margin(one.value, one.margin)

    dots = tuple(Mark(x(one.round), y(one.value), f"Round {one.round}: {said(one)}") for one in points)
    places = next(count for count in range(2, 12) if all(abs(round(tick, count) - tick) < 1e-9 for tick in ticks))
    return Line(
        title=title, height=_LINE_HEIGHT, width=width, path="M" + "L".join(f"{dot.x},{dot.y}" for dot in dots),
        spans="".join(f"M{x(one.round)},{y(one.low)}V{y(one.high)}" for one in points if one.margin is not None),
        summary=f"{title}: {said(points[0])} in round {rounds[0]}, {said(points[-1])} in round {rounds[-1]}; "
                f"lowest {words(min(numbers))}, highest {words(max(numbers))}."
                + (" Bars: where 95 % of repeats of the noise lie." if any(one.margin is not None for one in points) else "")
                + (f" Limit {amount(limit)}." if limit is not None else ""),
        dots=dots if len(dots) <= 40 else dots[-1:], last=Mark(dots[-1].x, dots[-1].y, words(numbers[-1])),
        rows=tuple(Mark(_LEFT, y(tick), decimals(tick, places)) for tick in ticks),
        columns=tuple(Mark(x(number), _LINE_HEIGHT - 8, str(number)) for number in round_ticks([first, last],
                                                                                              10 * width // WIDTH)),
        limit=None if limit is None else Mark(width - _RIGHT, y(limit), f"limit {amount(limit)}"))


def spending_chart(records: Sequence[RoundRecord]) -> Line | None:
    """The most that any site had spent after each round, against the limit, with room for all rounds that were agreed."""
    last = records[-1]
    points = [Point(record.round, record.largest_epsilon) for record in records if record.largest_epsilon is not None]
    if not points or last.epsilon_limit is None:
        return None
    end = max(last.round, last.rounds_agreed or 0)
    return line("Largest epsilon spent by round", points, [Point(0, 0.0), Point(end, last.epsilon_limit)],
                limit=last.epsilon_limit, words=spent)


def site_charts(records: Sequence[RoundRecord]) -> list[Line]:
    """What each site's own held-out rows say of the model, round by round, all with the same axes.

    Nothing before a second round is known, and nothing for more sites than `MOST_CURVES`.
    """
    found: dict[str, list[Point]] = {}
    word = ""
    for record in records:
        for row in record.sites:
            if (told := local(row)) is not None:
                word = told[0]
                found.setdefault(row.site, []).append(Point(record.round, told[1], told[2]))
    everything = [one for points in found.values() for one in points]
    if len(found) > MOST_CURVES or len({one.round for one in everything}) < 2:
        return []
    return [line(f"{short(one_line(site), 30)}: {word}", points, everything, width=BARS_WIDTH)
            for site, points in sorted(found.items())]


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
    summary = f"{title}: from {words(min(known))} to {words(max(known))} over {how_many(len(known), 'site')}"
    return Bars(
        title=title, height=18 + _ROW * len(bars) + 6, left=left, bars=bars,
        summary=summary + (f"; limit {amount(limit)}." if limit is not None else "."),
        limit=None if limit is None else Mark(round(left + limit * scale, 1), 12, f"limit {amount(limit)}"))


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers, the first at or below `low` and the last at or above `high`; at least two.

    What is not below 0 has no tick below 0.
    """
    if high - low < 0.02:
        low = (low + high) / 2 - 0.01 if low < 0 else max(0.0, (low + high) / 2 - 0.01)
        high = low + 0.02
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
