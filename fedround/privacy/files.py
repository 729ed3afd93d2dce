"""Files of a site that exist whole or not at all, and that only their owner reads."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def create_once(path: Path, body: bytes) -> bool:
    """Create `path` with `body`, durably, mode 0600. True: this call created it. False: something was there already.

    Nobody ever sees a part of it, and of many concurrent calls exactly one returns True.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")     # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)        # unlike replace, a link never overwrites
        except FileExistsError:
            return False
    finally:
        os.unlink(temporary)
    sync_folder(path.parent)
    return True


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
