"""What the coordinator is doing now, in one small file that the command line reads."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from fedround.files import write_whole
from fedround.values import Value

_FILE = "progress.json"


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


def write_progress(folder: Path, progress: Progress) -> None:
    """Replace the file, whole. Losing it loses nothing: it is for people."""
    write_whole(folder / _FILE, progress.model_dump_json().encode(), durable=False)


def read_progress(folder: Path) -> Progress | None:
    """The state that was written last, or None."""
    try:
        return Progress.model_validate_json((folder / _FILE).read_bytes())
    except (OSError, ValueError):
        return None
