"""FedProx: sites whose rows differ drift apart less."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedround.learning.algorithms.base import LocalAlgorithm, Steps


class FedProx(LocalAlgorithm):
    """Every step is also pulled back to the round's base model, by mu times the distance (Li et al. 2020, arXiv:1812.06127).

    The pull is known without the rows: it costs no privacy, and the law of the noise stays known, so a gate goes on judging
    it.
    """

    name: Literal["fedprox"] = "fedprox"
    mu: Annotated[float, Field(gt=0, le=1000)]

    @property
    def pull(self) -> float:
        """Mu."""
        return self.mu

    def objection(self, training: Steps) -> str | None:
        """As `LocalAlgorithm`."""
        if training.learning_rate * self.mu > 1:
            return (f"learning_rate x mu is {training.learning_rate * self.mu:g}: above 1 every step overshoots the base "
                    "model; lower one of them")
        return None
