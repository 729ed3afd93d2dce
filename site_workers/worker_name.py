"""The name under which a site's process serves its pool. Nobody can guess it: a stranger's worker has it from the API only.

Whoever reaches the API can read it there and take it: the name tells strangers apart, and proves nothing.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from fedround.files import write_whole

_FILE = "worker.name"


def known(folder: Path) -> str | None:
    """The name that the site's process uses; None: none has been started from this folder."""
    path = folder / _FILE
    return path.read_text().strip() if path.is_file() else None


def settled(folder: Path, site: str) -> str:
    """The same, chosen now if there is none. One folder keeps its name: no process takes its predecessor for a stranger."""
    name = known(folder)
    if not name:
        name = f"{site}-{secrets.token_hex(4)}"
        write_whole(folder / _FILE, f"{name}\n".encode(), durable=False)
    return name
