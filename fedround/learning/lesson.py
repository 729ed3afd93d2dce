"""What a site's training is about: where it begins, its rows, and what is the site's own. D coordinates of what travels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedround.codec import Tensors
from fedround.learning.apart import RowBound, Sought
from fedround.learning.device import DeviceName
from fedround.learning.examples import Examples
from fedround.learning.parts import NO_REST, Rest
from fedround.learning.persons import Persons
from fedround.learning.spec import LocalTraining
from fedround.learning.union.spec import UnionStep


@dataclass(frozen=True, eq=False)
class Lesson:
    """What one training begins with, and what it learns from. How is learnt, the plan says (`Training`)."""

    base: Tensors
    """The model that it begins with: what travels of it."""
    examples: Examples
    rest: Rest = NO_REST
    """What the model has besides `base`."""
    persons: Persons | None = None
    """Whose rows are whose, where persons are protected."""
    start: int = 0
    """The first row, where rows are taken in their order."""
    shift_D: npt.NDArray[np.float32] | None = None
    """What the algorithm adds to every gradient (`LocalAlgorithm.shift`)."""
    towards: Tensors | None = None
    """What a proximal term pulls to; None: `base`."""
    device: DeviceName = "cpu"
    """Where gradients are computed (`fedround.learning.device`)."""

    def sought(self, training: LocalTraining | UnionStep, bound: RowBound | None) -> Sought:
        """Gradients of this model on these rows."""
        return Sought(self.base, self.rest, self.examples, training, bound, self.device)

    @property
    def units(self) -> int:
        """How many the batches are drawn from: rows, or persons."""
        return len(self.examples) if self.persons is None else len(self.persons)

    def rows_of(self, drawn: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The rows of units that were drawn, one unit after the other; NOBODY where a person has fewer than are asked."""
        return drawn if self.persons is None else self.persons.row_PK[drawn].ravel()
