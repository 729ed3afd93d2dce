"""What this site has seen of the federation: how far its log goes, and how far each run's history. It only grows.

One file in the site's folder, written whole or not at all. If it is lost, no key is lost with it: the site then believes the
first history that it is shown, as a new site does.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from fedround.errors import ContractError
from fedround.files import write_whole
from fedround.records import LogHead
from fedround.signing import digest
from fedround.values import Digest, Name, Round, Value, canonical, parse

_FILE = "seen.json"


class SeenCommit(Value):
    """The newest commit of a run that the site has accepted."""

    round: Round
    digest: Digest


class Seen(Value):
    """The site's memory."""

    log: LogHead | None = None
    runs: dict[Name, SeenCommit] = Field(default_factory=dict)

    def after(self, log: LogHead, run: str, commit: SeenCommit) -> Seen:
        """With one plan more. Where answers to earlier plans count, it may be one of before what was seen last."""
        known = self.runs.get(run)
        if known is not None and commit.round < known.round:
            return self
        return Seen(log=log, runs={**self.runs, run: commit})


class _Kept(Value):
    """The content of the file. The digest shows damage; it is no protection from somebody who can write the file."""

    seen: Seen
    sha256: Digest


def read(folder: Path) -> Seen:
    """What the site in `folder` has seen; nothing, if it has seen nothing. Raises ContractError for a damaged file."""
    path = folder / _FILE
    if not path.exists():
        return Seen()
    kept = parse(_Kept, path.read_bytes(), str(path))
    if digest(canonical(kept.seen)) != kept.sha256:
        raise ContractError(f"{path} was altered, or damaged: its digest does not match. Restore it from your backup; "
                            "without one, move it away, and compare 'fedround verify' and 'fedround federation log' with "
                            "other members before this site answers again")
    return kept.seen


def write(folder: Path, seen: Seen) -> None:
    """Remember, durably: a power cut must not bring back a memory from before a rollback."""
    kept = _Kept(seen=seen, sha256=digest(canonical(seen)))
    write_whole(folder / _FILE, kept.model_dump_json().encode(), durable=True, mode=0o600)
