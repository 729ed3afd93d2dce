"""Ditto: a second model for each site, beside the shared one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedround.learning.algorithms.base import Steps
from fedround.values import Value


class Ditto(Value):
    """Every site also trains a model of its own, beside the shared one and from round to round (Ditto: Li et al. 2021,
    arXiv:2012.04221): as many steps as in the shared training, each pulled to the round's base model by `pull` times the
    distance (`fedround.learning.personal.personalise`). The site uses it. pull = 0: the model that a site would learn alone;
    a large pull: nearly the shared model.

    It never leaves, and nothing that leaves depends on it: it takes no noise and costs no privacy. So, like any model
    trained without noise, it may reveal its site's rows. No privacy promise covers what the site shows of it. The server has
    no half of it.
    """

    name: Literal["ditto"] = "ditto"
    pull: Annotated[float, Field(ge=0, le=1000)]

    def objection(self, training: Steps) -> str | None:
        """Why it does not go with this training; None: it does."""
        if training.learning_rate * self.pull > 1:
            return (f"learning_rate x personal.pull is {training.learning_rate * self.pull:g}: above 1 every step overshoots "
                    "the shared model; lower one of them")
        return None
