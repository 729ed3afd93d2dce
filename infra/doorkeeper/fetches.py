"""Who fetches how many models, from the proxy's own record of the S3 server: no store tells it.

An identity is the id of an S3 credential (`access_key` in a site's `keys/s3.toml`), which is no secret. A request's
signature names it. A request that the store refused counts for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

LOG = "run/s3.log"
"""As nginx writes it: seconds since 1970, identity, status, method and path."""

EVENT = "fedround.models.fetched-often"
DAY_S = 86_400.0
_LINE = re.compile(r'([0-9]+\.[0-9]{3}) ([A-Za-z0-9]{1,128}) (200|206) "GET /(?:[^ ]+/)?models/([0-9a-f]{64})\.safetensors"')
_MOST_READ = 1 << 20


def resource(federation: str, identity: str) -> dict[str, str]:
    """Whom the event is about."""
    return {"prefect.resource.id": f"fedround.federation.{federation}.credential.{identity}",
            "prefect.resource.name": identity, "fedround.federation": federation}


@dataclass
class Fetches:
    """Which models each identity has fetched in the last day. A model that is fetched in parts, or again, counts once."""

    limit: int
    _last: dict[str, dict[str, float]] = field(default_factory=dict)
    _told: dict[str, float] = field(default_factory=dict)

    def add(self, line: str) -> tuple[str, int] | None:
        """An identity that has fetched more models than the limit within a day, and how many; once in a day for each."""
        found = _LINE.fullmatch(line)
        if found is None:
            return None
        now, identity = float(found[1]), found[2]
        models = self._last.setdefault(identity, {})
        models[found[4]] = now
        for model in [one for one, last in models.items() if last <= now - DAY_S]:
            del models[model]
        if len(models) <= self.limit or now - self._told.get(identity, -DAY_S) < DAY_S:
            return None
        self._told[identity] = now
        return identity, len(models)


@dataclass
class Tail:
    """A log's new lines, each once: from its end at the start, and from the beginning of a file that took its place."""

    file: Path
    _inode: int = 0
    _at: int = -1

    def lines(self) -> Iterator[str]:
        """What was added since the last call; at most a megabyte of it."""
        try:
            with self.file.open("rb") as opened:
                status = self.file.stat()
                if self._at < 0:
                    self._inode, self._at = status.st_ino, status.st_size
                elif status.st_ino != self._inode or status.st_size < self._at:
                    self._inode, self._at = status.st_ino, 0
                opened.seek(self._at)
                read = opened.read(_MOST_READ)
        except FileNotFoundError:
            self._at = max(self._at, 0)
            return
        whole = read[:read.rfind(b"\n") + 1]
        if not whole and len(read) == _MOST_READ:       # no line is so long; what a crash left may be
            whole = read
        self._at += len(whole)
        for line in whole.split(b"\n")[:-1]:
            yield line.decode("ascii", "replace")
