"""How a campaign's learning rate or its local steps change from round to round, by a rule that all have agreed.

A rule has levels: level 0 is what was agreed, and each next one is `factor` times the one before, down to `least` times what
was agreed. Which level holds follows from the round's number (`Decay`), or from what the sites' noised scores told
(`Plateau`; `fedround.rounds.decay`).

Both are post-processing: the noise is on gradients, and the privacy of a round covers the agreed number of steps, of which
fewer are done. So a rule changes no charge.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from fedround.values import Value

MAX_PATIENCE = 50


class _Rule(Value):
    of: Literal["learning_rate", "local_steps"] = "learning_rate"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    least: Annotated[float, Field(gt=0, lt=1)] = 0.01

    @property
    def looks_back(self) -> int:
        """How many committed rounds say which level holds."""
        return 0

    @property
    def last_level(self) -> int:
        """From here on nothing changes any more."""
        return math.ceil(math.log(self.least) / math.log(self.factor)) + 1

    def share(self, level: int) -> float:
        """What is left of what was agreed. Multiplied one by one: the same on every machine."""
        share = 1.0
        for _ in range(min(level, 10_000)):
            share = max(share * self.factor, self.least)
        return share


class Decay(_Rule):
    """One level lower after each `every` rounds."""

    name: Literal["decay"] = "decay"
    every: Annotated[int, Field(ge=1, le=10_000)]


class Plateau(_Rule):
    """One level lower when the score has settled: in `patience` rounds it was no higher than in as many before, as far as the
    noise of both lets anybody see (`fedround.rounds.ending`). The count begins anew with each level.
    """

    name: Literal["plateau"] = "plateau"
    patience: Annotated[int, Field(ge=1, le=MAX_PATIENCE)] = 5

    @property
    def looks_back(self) -> int:
        """As `_Rule`."""
        return 2 * self.patience


Rule = Annotated[Decay | Plateau, Field(discriminator="name")]
