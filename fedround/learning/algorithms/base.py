"""What every local algorithm can say; each default is "nothing".

D coordinates of what travels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from fedround.aggregation.spec import Aggregation
from fedround.compression.spec import Compression
from fedround.values import Value

Float32 = npt.NDArray[np.float32]
Vectors = Mapping[str, Float32]
"""Named vectors, (D,) each. One that is not there stands for zeros."""


class Steps(Protocol):
    """The settings of local training that an algorithm needs (`fedround.learning.spec.LocalTraining`)."""

    @property
    def local_steps(self) -> int:
        """How many steps a round has."""

    @property
    def learning_rate(self) -> float:
        """Of each."""

    @property
    def momentum(self) -> float:
        """Of the optimizer."""

    @property
    def optimizer(self) -> str:
        """Its name."""

    @property
    def partial(self) -> str:
        """What a site sends if its time is up."""


class LocalAlgorithm(Value):
    """Both halves of an algorithm. All of it works on gradients that are noised already and on what was released before:
    it is post-processing, and no mechanism's cost depends on it (Dwork and Roth 2014, proposition 2.1).
    """

    keeps: ClassVar[tuple[str, ...]] = ()
    """Vectors that a site keeps from one round to the next. They never leave it."""
    serves: ClassVar[tuple[str, ...]] = ()
    """Vectors that the server computes in each round, that the next plan names and every site reads."""
    law_is_known: ClassVar[bool] = True
    """Whether a site's change is linear in this round's gradients and in nothing else that is noised: then the law of its
    noise follows from the law of theirs, and a gate can judge it."""

    @property
    def pull(self) -> float:
        """The strength of the pull back to the round's base model in every step, times the distance."""
        return 0.0

    def objection(self, training: Steps) -> str | None:
        """Why it does not go with this training; None: it does."""
        return None

    def objection_to(self, compression: Compression | None, aggregation: Aggregation) -> str | None:
        """Why it does not go with what else was agreed; None: it does."""
        return None

    def shift(self, served: Vectors, kept: Vectors) -> Float32 | None:
        """What is added to every gradient of what travels; None: nothing."""
        return None

    def at_site(self, shift_D: Float32 | None, sent_D: Float32, training: Steps) -> Vectors:
        """What a site keeps after a round with this shift in which it sent this delta."""
        return {}

    def at_server(self, served: Vectors, aggregate_D: Float32, training: Steps, share: float) -> Vectors:
        """What the server provides after a round with this aggregate, whose sites have `share` of the federation's weight."""
        return {}
