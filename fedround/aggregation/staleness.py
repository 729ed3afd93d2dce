"""At which pace answers count: how old the plan of an answer may be, and what its age does to its weight."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from fedround.values import Value

MAX_AGE = 50


class Pace(Value):
    """Answers to the plans of earlier rounds count, too (after FedBuff, Nguyen et al. 2022, arXiv:2106.06639).

    staleness: an answer to the plan of s rounds ago counts its agreed weight times (1 + s)^-1/2 ("polynomial"), or all of it
    ("constant"). s follows from signed plans; nothing that a site says changes it.
    """

    max_age: Annotated[int, Field(ge=1, le=MAX_AGE)]
    """So many rounds after its own, an answer counts for the last time."""
    staleness: Literal["polynomial", "constant"] = "polynomial"

    def share(self, age: int) -> float:
        """What an answer of this age counts of its weight."""
        return 1.0 if self.staleness == "constant" else 1 / math.sqrt(1 + age)

    @property
    def window(self) -> int:
        """How many rounds back sightings of a majority are looked for: twice the age, so that a member which always takes as
        long as it may is never left out (decision 58).
        """
        return 2 * self.max_age + 1
