"""Who may end a training before its last step."""

from __future__ import annotations

from typing import Final, Protocol


class Guard(Protocol):
    """Looked at between two steps."""

    def __call__(self) -> bool:
        """Whether to stop and release nothing."""

    def time_is_up(self) -> bool:
        """After a step: whether to send the steps so far, where the plan keeps partial work."""


class Countdown:
    """A guard that nobody cancels, and whose time is up after `steps` steps (None: never)."""

    def __init__(self, steps: int | None = None):
        self._left = steps

    def __call__(self) -> bool:
        """Whether to stop and release nothing."""
        return False

    def time_is_up(self) -> bool:
        """After a step: whether that was the last one."""
        if self._left is None:
            return False
        self._left -= 1
        return self._left <= 0


UNGUARDED: Final[Guard] = Countdown()
"""Nobody cancels, and time is never up."""
