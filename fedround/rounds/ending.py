"""When a campaign may end before its last round: its score has stopped growing, as far as the noise lets anybody see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ToldOfModel:
    """What the sites' noised counts say of one round's model."""

    value: float
    """More is better."""
    margin: float
    """How far noise may have moved it, in 95 of 100 repeats; 0: it is not noised."""


def has_settled(told: Sequence[ToldOfModel], patience: int) -> bool:
    """Whether the mean of the last `patience` values is above that of as many before them by no more than noise does, in 95
    of 100 repeats.

    told: of the rounds that told a value, in their order. The rounds' noise is drawn apart, so the mean of more is known
    better: a larger patience sees smaller gains. It promises nothing of what would have come: a gain that stays below the
    noise of so many rounds is not seen, and the campaign ends.
    """
    if len(told) < 2 * patience:
        return False
    now, before = told[-patience:], told[-2 * patience:-patience]
    gained = math.fsum(one.value for one in now) - math.fsum(one.value for one in before)
    return gained <= math.sqrt(math.fsum(one.margin ** 2 for one in (*now, *before)))
