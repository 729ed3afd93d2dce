"""Who of those that are waited for has stopped moving.

A site at work says now and then that something moves (a step, a piece of a file), and not how far it is. Nobody proves it:
a site that lies, or somebody at the Prefect API, makes a round wait until its deadline, and no longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping


class Idleness:
    """When each site's sign has changed last, by this process's own clock.

    idle_s: so long a site may be without a new sign, from when it is first looked at.
    """

    def __init__(self, idle_s: float, clock: Callable[[], float] = time.monotonic):
        self._idle_s, self._clock = idle_s, clock
        self._changed: dict[str, tuple[object, float]] = {}

    def still(self, among: Collection[str], signs: Mapping[str, object]) -> set[str]:
        """Of these, who has not moved for too long. signs: what changes when a site moves; None, or no name: nothing yet."""
        now = self._clock()
        for site in among:
            if site not in self._changed or self._changed[site][0] != signs.get(site):
                self._changed[site] = signs.get(site), now
        return {site for site in among if now - self._changed[site][1] > self._idle_s}
