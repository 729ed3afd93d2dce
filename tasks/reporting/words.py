"""Numbers and foreign words as a reader sees them."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from fedround.aggregation.verdict import Verdict
from fedround.learning.tasks import SHOWN, in_words
from fedround.privacy.profile import upward

_FAULTS: dict[Verdict, str] = {
    Verdict.NOT_FINITE: "numbers that are not finite",
    Verdict.NORM: "its norm",
    Verdict.GATE: "the gate",
    Verdict.NOISE: "its noise",
    Verdict.FEW: "too few of its model",
}

SIGNS = {"updated": "✓", "left_out": "✕", "refused": "–", "rejected": "!", "missing": "…", "excluded": "○"}
"""What became of a site, as one sign; a page's style has the same."""


def label(metric: str) -> str:
    """A metric's name for people, at the beginning of a line; the words are the task's."""
    word = in_words(metric) if metric.rpartition(".")[2] in SHOWN else metric.replace("_", " ")
    return word[:1].upper() + word[1:]


def fault(verdict: Verdict | None) -> str:
    """The words for why the aggregation left an update out."""
    return "" if verdict is None else _FAULTS.get(verdict, str(verdict))


def decimals(value: float | None, places: int = 3) -> str:
    """A number, or a dash for None."""
    return "–" if value is None else f"{value:.{places}f}"


def significant(value: float | None) -> str:
    """A number of any size with three digits, or a dash for None."""
    if value is None:
        return "–"
    return f"{value:#.3g}".rstrip(".") if 0.001 <= abs(value) < 1000 else f"{value:.3g}"


def amount(value: float) -> str:
    """A number that a person chose or a sum of bytes, written as people write it: a whole number with all its digits."""
    return (f"{value:,}" if isinstance(value, int) else f"{value:,.10g}").replace(",", "\u202f")


def spent(epsilon: float | None) -> str:
    """Privacy spent, rounded up: never less than the truth."""
    return "–" if epsilon is None else upward(epsilon, 2)


def with_margin(value: float | None, margin: float | None) -> str:
    """A number and how far noise may have moved it, rounded up."""
    return decimals(value) + ("" if value is None or margin is None else f" ± {upward(margin, 3)}")


def change(now: float, before: float, margin: float | None = None, former: float | None = None) -> str:
    """How far a metric has moved, with its sign; and whether noise alone may do that, if margins are known."""
    moved = f"{now - before:+.3f}".replace("-", "−")
    if margin is None and former is None:
        return moved
    within = abs(now - before) <= math.hypot(margin or 0.0, former or 0.0)
    return f"{moved}, {'no more than noise does' if within else 'more than noise does'}"


def moment(when: datetime) -> str:
    """A date and a time that mean the same to everybody."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def short(text: str, length: int) -> str:
    """At most `length` characters, the cut shown."""
    return text if len(text) <= length else text[:length - 1] + "…"
