"""One process serves a member's folder, and no second one beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from fedround.errors import SetupError

PATIENCE_S = 10.0
"""Who was killed still holds the folder for a moment: the system takes the memory back first, and helpers end after their
parent. Whoever starts it again at once, a supervisor say, is not to fail over this.
"""


@contextmanager
def served_alone(folder: Path) -> Iterator[None]:
    """While this lasts, no other process serves the folder. Raises SetupError if one does, and does not end in time."""
    try:
        lock = FileLock(folder / ".serving").acquire(timeout=PATIENCE_S, poll_interval=0.1)
    except Timeout:
        raise SetupError(f"another process serves {folder}: stop that one first") from None
    with lock:
        yield
