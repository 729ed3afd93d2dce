"""How many steps a slow site does, where it may do fewer than all."""

from __future__ import annotations

from fedround.learning.spec import LocalTraining

SHARE = 0.5
"""Of the time that a plan may take, for steps."""


def affordable(training: LocalTraining, seconds_a_step: float, allowed_s: float) -> int:
    """All steps that are paid, halved until they take at most `SHARE` of the time; never fewer than the training allows."""
    steps, fewest = training.paid, training.fewest_steps or training.paid
    while steps > fewest and steps * seconds_a_step > SHARE * allowed_s:
        steps = max(fewest, steps // 2)
    return steps
