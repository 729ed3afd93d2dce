"""What comes of what members sent: who is left out for a while, and who gets points. Both are agreed, or there is neither."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from fedround.spoken import how_many
from fedround.values import Value

MAX_WINDOW = 100
"""Rounds that a reputation policy can look back."""


class Reputation(Value):
    """When a member is excluded for a while. If its updates of `exclude_after` of the last `window` rounds were left out of
    the aggregate (a `Verdict` other than "used"), it sits out `exclude_for` rounds of the run, and then starts with a clean
    record.

    Only what a site signed counts against it. The plan names the excluded members, the reasons, and until when.
    """

    window: Annotated[int, Field(ge=1, le=MAX_WINDOW)]
    exclude_after: Annotated[int, Field(ge=1, le=MAX_WINDOW)]
    exclude_for: Annotated[int, Field(ge=1, le=1000)]

    @model_validator(mode="after")
    def _check_reachable(self) -> Self:
        if self.exclude_after > self.window:
            raise ValueError(f"exclude_after {self.exclude_after} can never be reached within "
                             f"{how_many(self.window, 'round')}")
        return self


class Incentive(Value):
    """What members get for taking part: points, shared by what their updates added and by how reliably they came
    (`fedround.contribution.payout`). A word on the side: it changes no weight, and nobody is asked more or less often for it.
    """

    points: Annotated[float, Field(gt=0, le=1e12)]
    """For a whole run, over all members together."""
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The share that every member gets whose update ever came."""
