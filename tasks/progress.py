"""What the coordinator is doing now, in one small file that the command line reads."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from fedround.files import write_whole
from fedround.values import Value

_FILE = "progress.json"
_NAMED = 12


class Progress(Value):
    """Where a run stands."""

    run: str
    round: int
    stage: str
    cohort: int = 0
    updates: int = 0
    refused: int = 0
    rejected: int = 0
    problem: str | None = None
    excluded: tuple[str, ...] = ()
    """Who is not asked, why, and until when."""
    waiting: tuple[str, ...] = ()
    """Sites that were asked and have said nothing yet."""
    until: datetime | None = None
    """When they are no longer waited for."""


def stopped(progress: Progress, cohort: Collection[str]) -> str:
    """What a round that was stopped by request has cost, as far as the coordinator can know."""
    if not cohort:
        return "stopped by request before anybody was asked: nothing was charged"
    if progress.stage == "evaluate":
        return f"stopped by request after round {progress.round} was committed"
    answered = sorted(set(cohort) - set(progress.waiting))
    told = f"{listed(answered)} answered, and whoever trained was charged" if answered else "nobody had answered"
    rest = f"; {listed(progress.waiting)} did not, and may have been charged" if progress.waiting else ""
    return (f"stopped by request in round {progress.round}, which is not committed: {told}{rest}. Committed rounds stay. "
            "Asked again, the round goes on from these answers, and nobody is charged twice")


def listed(names: Collection[str]) -> str:
    """Some of the names, in words: a state's message is no list of a thousand."""
    some = sorted(names)
    return ", ".join(some) if len(some) <= _NAMED else f"{', '.join(some[:_NAMED])} and {len(some) - _NAMED} more"


def write_progress(folder: Path, progress: Progress) -> None:
    """Replace the file, whole. Losing it loses nothing: it is for people."""
    write_whole(folder / _FILE, progress.model_dump_json().encode(), durable=False)


def read_progress(folder: Path) -> Progress | None:
    """The state that was written last, or None."""
    try:
        return Progress.model_validate_json((folder / _FILE).read_bytes())
    except (OSError, ValueError):
        return None
