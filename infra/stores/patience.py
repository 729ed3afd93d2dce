"""How long one step waits in all."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from fedround.errors import TooSlowError

_TELL_FROM_S = 1.0

log = logging.getLogger("fedround.store")


class Patience:
    """One budget of time for everything that a step waits for: answers, slow bodies, tries after a failure, long lists.

    A step makes one and hands it down. Each wait takes from it, sleeps between two looks, and says what it waited for when it
    is over.
    clock: counts seconds, and is never set back.
    sleep: for tests.
    moved: is called for every piece of a body that travels.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic,
                 sleep: Callable[[float], None] = time.sleep, moved: Callable[[], object] = lambda: None):
        self._seconds, self._clock, self._sleep, self.moved = seconds, clock, sleep, moved
        self._end = clock() + seconds

    def __repr__(self) -> str:
        return f"Patience({self.left_s:.1f} of {self._seconds:.1f} s)"

    @property
    def left_s(self) -> float:
        """Seconds until it is over; 0 from then on."""
        return max(0.0, self._end - self._clock())

    def check(self, what: str) -> None:
        """Raises TooSlowError if it is over. what: is waited for, for the message."""
        if self._clock() >= self._end:
            raise TooSlowError(f"{what} took longer than the {self._seconds:.3g} s that it may take: the object store, "
                               "or the network, is slow. Look at both, and try again; nothing is lost")

    def pause(self, seconds: float, what: str) -> None:
        """Sleep before the next look, no longer than the patience lasts. Raises TooSlowError if it is over."""
        self.check(what)
        if seconds >= _TELL_FROM_S:
            log.info("waiting %.3g s for %s", seconds, what)
        self._sleep(min(seconds, self.left_s))
        self.check(what)

    def at_most(self, seconds: float) -> Patience:
        """A part of it: at most `seconds`, and at most what is left."""
        return Patience(min(seconds, self.left_s), self._clock, self._sleep, self.moved)

    def share(self, among: int) -> Patience:
        """An equal share of what is left, so that one slow member does not take the time of the others."""
        return self.at_most(self.left_s / max(1, among))
