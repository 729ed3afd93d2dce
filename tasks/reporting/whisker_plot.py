"""Values with their intervals as plots: contributions, columns, bins. Data in, SVG coordinates out; charts.j2 draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedround.contribution.said import Contribution
from fedround.spoken import how_many, one_line
from tasks.reporting.charts import nice_ticks
from tasks.reporting.contribution import added, interval
from tasks.reporting.gap_plot import WIDTH, Plot, Whisker
from tasks.reporting.words import short
from validation.reliability import Explained, Reliability

_LEFT, _RIGHT, _TOP, _ROW, _BOTTOM = 150, 20, 8, 26, 24
_SIZE, _EDGE, _FOOT = 330, 44, 30
MOST_COLUMNS = 20


@dataclass(frozen=True)
class Dot:
    """A point with its interval upwards and downwards."""

    x: float
    y: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Square:
    """Shares against shares, with the line on which they are the same."""

    title: str
    summary: str
    dots: tuple[Dot, ...]
    ticks: tuple[tuple[float, float, str], ...]
    size: int = _SIZE
    left: int = _EDGE
    right: int = _SIZE - 12
    top: int = 10
    bottom: int = _SIZE - _FOOT


def of_contribution(said: Contribution) -> Plot:
    """Every site's value, in the order of the commit."""
    return around("What each site added", [
        (one.site, one.value, one.value if one.low is None else one.low, one.value if one.high is None else one.high,
         f"{added(one.value)} ({interval(one.low, one.high) or 'no interval'})") for one in said.sites])


def of_importance(found: Explained) -> Plot:
    """The most important columns."""
    return around("Loss if a column is shuffled", [
        (one.column, one.value, one.value - one.std, one.value + one.std, f"{added(one.value)} ± {one.std:.4f}")
        for one in found.importance[:MOST_COLUMNS]])


def of_drops(found: Explained) -> Plot | None:
    """The same at the sites; None: they were not asked, or the noise hides all of it."""
    drops = () if found.at_sites is None else found.at_sites.drops
    known = [(one.column, one.value, one.margin or 0.0) for one in drops if one.value is not None]
    return around("Loss if a column is replaced, at the sites", [
        (column, value, value - margin, value + margin, f"{added(value)} ± {margin:.4f}")
        for column, value, margin in known[:MOST_COLUMNS]]) if known else None


def of_pulls(found: Explained) -> Plot:
    """How the strongest columns pull the chances of single rows: a dot for each row."""
    shown = found.pulls[:MOST_COLUMNS]
    ends = [value for one in shown for value in one.values]
    named = nice_ticks(min([0.0, *ends]), max([0.0, *ends]))
    place = _placed(named)
    whiskers = tuple(
        Whisker(short(one_line(one.column), 18) if turn == 0 else "", f"{one.column}: {added(value)}",
                _TOP + _ROW * (row + 0.5) + (turn * 7 % 11 - 5) * 0.9, place(value), place(value), place(value))
        for row, one in enumerate(shown) for turn, value in enumerate(one.values))
    summary = "; ".join(f"{one_line(one.column)}: on average {one.strength:.4f}" for one in shown)
    return Plot("How columns pull single rows (SHAP)", summary, _TOP + _ROW * len(shown) + _BOTTOM, _LEFT, whiskers,
                tuple((place(tick), f"{tick:g}") for tick in named), zero=place(0.0))


def of_reliability(found: Reliability) -> Square:
    """What was true of each bin against what the model said."""
    def across(share: float) -> float:
        return round(_EDGE + share * (_SIZE - 12 - _EDGE), 1)

    def up(share: float) -> float:
        return round(_SIZE - _FOOT - share * (_SIZE - _FOOT - 10), 1)

    dots = tuple(Dot(across(one.predicted), up(one.observed.value), up(one.observed.low), up(one.observed.high),
                     f"said {one.predicted:.3f}, true of {one.observed}; {how_many(one.rows, 'row')}") for one in found.bins)
    return Square("Calibration: what was true, by what the model said", "; ".join(dot.text for dot in dots), dots,
                  tuple((across(tick / 4), up(tick / 4), f"{tick / 4:g}") for tick in range(5)))


def _placed(named: Sequence[float]) -> Callable[[float], float]:
    """From a number to its place between the first and the last tick."""
    first, last = named[0], named[-1]
    return lambda number: round(_LEFT + (WIDTH - _LEFT - _RIGHT) * (number - first) / (last - first), 1)


def around(title: str, items: Sequence[tuple[str, float, float, float, str]]) -> Plot:
    """Name, value, both ends of its interval, and its words, around zero."""
    ends = [number for _, *numbers, _ in items for number in numbers]
    named = nice_ticks(min([0.0, *ends]), max([0.0, *ends]))
    place = _placed(named)
    whiskers = tuple(Whisker(short(one_line(name), 18), f"{name}: {words}", _TOP + _ROW * (row + 0.5), place(low),
                             place(value), place(high)) for row, (name, value, low, high, words) in enumerate(items))
    return Plot(title, "; ".join(one_line(one.text) for one in whiskers), _TOP + _ROW * len(whiskers) + _BOTTOM, _LEFT,
                whiskers, tuple((place(tick), f"{tick:g}") for tick in named), zero=place(0.0))
