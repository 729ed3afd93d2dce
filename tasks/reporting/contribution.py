"""Contributions for people: the sentences and the numbers, on a page and on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from fedround.contribution.payout import Account
from fedround.contribution.said import Contribution
from fedround.learning.tasks import in_words

_WIDTH = 21


def said_of(said: Contribution) -> str:
    """What was split, how, and how much of it is noise."""
    metric, gained = in_words(said.metric), added(said.everybody - said.nobody)
    how = (f"from all {said.coalitions:,} coalitions" if said.method == "exact" else
           f"from {said.coalitions:,} coalitions in orders that were drawn")
    return (f"The round's model has {metric} {said.everybody:.4f} on the public test set, the server's step without any "
            f"update {said.nobody:.4f}: {gained} is split into Shapley values, {how}. {of_noise(said)}")


def of_noise(said: Contribution) -> str:
    """What the intervals say, and what ranks are worth."""
    if said.apart is None:
        return ("The law of the noise in the updates is not known, so no interval is told: do not read a rank as more than "
                "this round's.")
    if all(one.noise_std == 0 for one in said.sites):
        return "The updates hold no noise."
    chance = round(0.05 * said.pairs, 1)
    few = 2 * said.apart < said.pairs
    word = "" if said.apart == said.pairs else "So ranks are mostly noise. " if few else "So some ranks are noise. "
    return (f"Intervals: how far the noise alone moves a value, in 95 of 100 cases. {said.apart} of {said.pairs} pairs of "
            f"sites differ by more than noise explains; by chance alone {chance:g} would. {word}At a small epsilon ranks are "
            "mostly noise, whatever the sites' rows are.")


def render_accounts(accounts: Sequence[Account], last: Contribution) -> str:
    """Markdown: what every site added over a run, and its points."""
    lines = ["| site | added | interval, from the noise | came | points |", "|---|--:|--:|--:|--:|"]
    lines += [f"| {one.site} | {added(one.value)} | {interval(one.low, one.high)} | {one.came} of {one.asked} | "
              f"{points(one.points)} |" for one in accounts]
    return "\n".join([*lines, "", f"It feeds no weight. Of the last round: {said_of(last)}"])


def added(value: float) -> str:
    """A signed number."""
    return f"{value:+.4f}".replace("-", "−")


def interval(low: float | None, high: float | None) -> str:
    """Or nothing."""
    return "" if low is None or high is None else f"{added(low)} to {added(high)}"


def points(value: float | None) -> str:
    """What a site gets."""
    return "" if value is None else f"{value:,.1f}"


def bar(value: float, low: float | None, high: float | None, end: float) -> str:
    """A value with its interval as a picture of 21 characters, from -end to end; the middle is nothing."""
    def place(number: float) -> int:
        return min(_WIDTH - 1, max(0, round((number / end + 1) / 2 * (_WIDTH - 1)))) if end > 0 else _WIDTH // 2

    left, dot, right = place(low if low is not None else value), place(value), place(high if high is not None else value)
    return "".join("●" if at == dot else "─" if left <= at <= right else "│" if at == _WIDTH // 2 else "·"
                   for at in range(_WIDTH))


def end_of(said: Contribution) -> float:
    """How far a picture of all sites must reach."""
    return max(abs(number) for one in said.sites for number in (one.value, one.low or 0.0, one.high or 0.0))
