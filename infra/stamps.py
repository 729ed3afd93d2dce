"""Whether files are still what they were when they were read: a long-lived process reads again what was replaced."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

Stamp = tuple[tuple[int, int, int] | None, ...]
"""Inode, size and time of change (ns) of each file; None: it is not there."""


def stamp_of(paths: Iterable[Path]) -> Stamp:
    """What these files are now. Two stamps differ if one of the files was replaced or written in between."""
    return tuple((found.st_ino, found.st_size, found.st_mtime_ns) if path.exists() and (found := path.stat()) else None
                 for path in paths)
