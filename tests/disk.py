"""What reaches the disk, in order; and files that are replaced by others that look the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def watched() -> Iterator[list[tuple[str, Path]]]:
    """("synced", file or folder) for every fsync, ("named", place) for every file that takes its name by a rename."""
    happened: list[tuple[str, Path]] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        happened.append(("synced", Path(os.readlink(f"/proc/self/fd/{descriptor}"))))

    def named(source: os.PathLike[str], target: os.PathLike[str], **how: int | None) -> None:
        replace(source, target, **how)
        happened.append(("named", Path(target)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", synced)
        patch.setattr(os, "replace", named)
        yield happened


def is_durable(happened: list[tuple[str, Path]], path: Path) -> bool:
    """Whether the file that became `path` was synced before it took that name, and its folder after."""
    at = happened.index(("named", path))
    before = [what for what in happened[:at] if what[0] == "synced" and what[1].name.startswith(f".{path.name}.")]
    return before != [] and ("synced", path.parent) in happened[at + 1:]


def replace_alike(path: Path, body: bytes) -> None:
    """Put another file of the same length in the place of `path`, with the same time of change."""
    old = path.stat()
    assert len(body) == old.st_size
    other = path.with_name(f"{path.name}.new")
    other.write_bytes(body)
    os.utime(other, ns=(old.st_atime_ns, old.st_mtime_ns))
    other.replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (old.st_size, old.st_mtime_ns)


def rewrite_alike(path: Path, body: bytes) -> None:
    """Write other bytes into the same file, and set its time of change back, once the system's clock has ticked."""
    old, clock = path.stat(), path.with_name(f"{path.name}.clock")
    clock.touch()
    while clock.stat().st_ctime_ns <= old.st_ctime_ns:
        clock.touch()
    clock.unlink()
    assert len(body) == old.st_size
    path.write_bytes(body)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
