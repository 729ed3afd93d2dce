"""The page of all runs, from the last record of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.reporting.page import template
from tasks.reporting.record import RoundRecord, foremost
from tasks.reporting.verified import Verified, in_short, is_doubtful

INDEX = "index.html"


@dataclass(frozen=True)
class Listed:
    """One run: its last round, how many are recorded, and what the last proof found."""

    last: RoundRecord
    rounds: int
    verified: Verified | None = None

    @property
    def reached(self) -> tuple[str, float] | None:
        """The metric that a headline tells, of the last round."""
        return foremost(self.last.public)


@dataclass(frozen=True)
class Compared:
    """A page that puts two runs side by side: its name in the folder."""

    page: str
    one: str
    other: str


def render_index(runs: Sequence[Listed], compared: Sequence[Compared] = ()) -> str:
    """All runs, the newest first, those without a date last; then the comparisons. Same records, same bytes."""
    dated = sorted((one for one in runs if one.last.ended is not None),
                   key=lambda one: (one.last.ended, one.last.run), reverse=True)
    undated = [one for one in runs if one.last.ended is None]
    return template("index.html.j2").render(
        runs=[*dated, *undated], compared=compared, proof=in_short, doubtful=is_doubtful,
        federations=sorted({one.last.federation for one in runs}))
