"""What every learner can say; each default is "nothing". A learner is how a model is learnt: a value that a federation
agrees on (`fedround.learning.spec.Training`).

D coordinates of what travels.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fedround.learning.algorithms import Algorithm, Plain, Vectors
from fedround.learning.algorithms.base import Float32
from fedround.privacy.spec import Privacy
from fedround.values import Value

ClassWeights = Annotated[tuple[Annotated[float, Field(gt=0, le=1000)], ...], Field(max_length=1000)]
"""By which a row's loss is multiplied, for each label in its order; empty: by nothing. A row's gradient is clipped after
that: a rare label counts more as far as its rows' gradients are within the clip norm, and no row does more."""


class Learner(Value):
    """Both halves of what a learner keeps from round to round, and what it cannot be agreed with."""

    in_recipes: ClassVar[str | None] = None
    """The name under which a recipe says it; None: the federation file says it, and no recipe does."""

    def objection_to(self, privacy: Privacy) -> str | None:
        """Why it cannot be agreed together with this privacy; None if it can."""
        return None

    def at_site(self, shift_D: Float32 | None, sent_D: Float32) -> Vectors:
        """What a site keeps after a round with this shift in which it sent this delta."""
        return {}

    def at_server(self, served: Vectors, aggregate_D: Float32, share: float) -> Vectors:
        """What the server provides after a round with this aggregate, whose sites have `share` of the federation's weight."""
        return {}


class AtOnce(Learner):
    """A learner without steps at a site: what steps agree on has no choice here."""

    algorithm: ClassVar[Algorithm] = Plain()
    local_steps: ClassVar[int] = 1
    paid: ClassVar[int] = 1
    fewest_paid: ClassVar[int] = 1
    fewest_steps: ClassVar[None] = None
    rule: ClassVar[None] = None
    partial: ClassVar[Literal["refuse"]] = "refuse"
