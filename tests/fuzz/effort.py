"""How much is tried: so many examples, the same in every run; or with FEDROUND_FUZZ=N so many times more, always others."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("FEDROUND_FUZZ", "1"))


def examples(number: int) -> settings:
    """For a test that tries `number` examples where a change is checked."""
    return settings(max_examples=number * TIMES, derandomize=TIMES == 1, database=None, deadline=None,
                    suppress_health_check=list(HealthCheck))
