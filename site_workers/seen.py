"""What this site has seen of the federation: how far its log goes, and how far each run's history. It only goes forwards.

One file in the site's folder, written whole or not at all. Losing it loses a memory, not a key: the site then believes the
first history that it is shown, as a new site does.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from fedround.files import write_whole
from fedround.records import LogHead
from fedround.values import Digest, Name, Value, parse

_FILE = "seen.json"


class SeenCommit(Value):
    """The newest commit of a run that the site has accepted."""

    round: int
    digest: Digest


class Seen(Value):
    """The site's memory."""

    log: LogHead | None = None
    runs: dict[Name, SeenCommit] = Field(default_factory=dict)

    def after(self, log: LogHead, run: str, commit: SeenCommit) -> Seen:
        """With one plan more."""
        return Seen(log=log, runs={**self.runs, run: commit})


def read(folder: Path) -> Seen:
    """What the site in `folder` has seen; nothing, if it has seen nothing. Raises ContractError for a damaged file."""
    path = folder / _FILE
    return parse(Seen, path.read_bytes(), str(path)) if path.exists() else Seen()


def write(folder: Path, seen: Seen) -> None:
    """Remember, durably: a power cut must not bring back a memory from before a rollback."""
    write_whole(folder / _FILE, seen.model_dump_json().encode(), durable=True, mode=0o600)
