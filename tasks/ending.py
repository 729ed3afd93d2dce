"""Whether a campaign ends before the rounds that it was asked for, because the sites' noised score has stopped growing."""

from __future__ import annotations

from collections.abc import Sequence

from fedround.rounds.ending import ToldOfModel, has_settled
from tasks.coordinator import Coordinator
from tasks.report import records
from tasks.reporting.record import RoundRecord


def told_by(rounds: Sequence[RoundRecord], headline: str) -> list[ToldOfModel]:
    """The task's first metric in each round whose counts tell it: of what has left the sites anyway, so it costs nothing."""
    found = []
    for one in rounds:
        value = None if one.at_sites is None else one.at_sites.known().get(headline)
        margin = None if one.at_sites_margin is None else one.at_sites_margin.of(headline)
        if value is not None:
            found.append(ToldOfModel(value, margin or 0.0))
    return found


def ends_here(coordinator: Coordinator, run: str, patience: int | None) -> bool:
    """Whether the run's score has settled (`fedround.rounds.ending`). patience: None: nobody asked."""
    if patience is None:
        return False
    return has_settled(told_by(records(coordinator, run), coordinator.recipe.task.headline), patience)
