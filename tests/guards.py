"""Guards that tests train under, besides `UNGUARDED` and `Countdown`."""

from __future__ import annotations

from fedround.learning.guard import Countdown


class Stopped(Countdown):
    """Somebody cancels the training when it has been looked at so often: before its first step, if nothing is said."""

    def __init__(self, looks: int = 0):
        super().__init__()
        self._looks = looks

    def __call__(self) -> bool:
        self._looks -= 1
        return self._looks < 0
