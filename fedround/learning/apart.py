"""Where a recipe's own code runs, if not in the process that uses the recipe (`site_workers.apart` is such a place).

What does not depend on that code stays with the user: which rows are drawn, noise, the step, what is released. What comes
back from elsewhere is believed in nothing but its form.

D coordinates, N rows.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from fedround.codec import Schema, Tensors
from fedround.learning.device import DeviceName
from fedround.learning.examples import Examples, Form
from fedround.learning.spec import LocalTraining, Parts
from fedround.learning.union.spec import UnionStep

if TYPE_CHECKING:
    from fedround.learning.gradients import Clip
    from fedround.learning.parts import Rest, Schemas
    from fedround.learning.tasks import Scored

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RowBound:
    """How each row's part in a sum of gradients is bounded."""

    clip: Clip
    each: int
    """So many rows, one after the other, are one person's."""
    expected: float
    """Of rows, or of persons, in a batch: public."""


@dataclass(frozen=True, eq=False)
class Sought:
    """Gradients of what, on which rows."""

    base: Tensors
    rest: Rest
    examples: Examples
    training: LocalTraining | UnionStep
    bound: RowBound | None
    """None: single rows are not bounded."""
    device: DeviceName = "cpu"


class GradientSums(Protocol):
    """Sums over some rows of the gradients of their losses."""

    schema: Schema
    """Of all that is trained: the base model, and private parameters beside it."""
    weights_D: Float32
    """Where the gradients are computed; whoever uses them changes it in place, between two sums."""

    def begin(self, seed: int) -> None:
        """Where the model's own randomness begins (dropout)."""

    def plain(self, rows_B: Int64) -> Float32 | Float64:
        """The sum of these rows' gradients, (D,); float32 where that is what was computed."""

    def bounded(self, rows_B: Int64, there_B: Bools) -> tuple[Int64, int]:
        """The sum of those that are there, each clipped, in whole cells, (D,); and how many were within the clip norm.

        Either is at most what as many clipped rows can add up to, also if it comes from elsewhere.
        """

    def kept(self) -> Tensors:
        """What layers keep themselves, after these sums: of the private part."""


class Apart(Protocol):
    """A recipe's code, elsewhere. All of it raises ContractError in words, MemoryError, and Cancelled."""

    def schemas(self, parts: Parts) -> Schemas:
        """As `fedround.learning.recipe.schemas`."""

    def order(self) -> tuple[str, ...]:
        """The names of the model's tensors, in its own order."""

    def initial(self, seed: int, parts: Parts, start: Tensors | None, *, per_record: bool) -> tuple[Tensors, Rest]:
        """As `fedround.learning.recipe.initial`."""

    def tried(self, form: Form, parts: Parts | None, training: LocalTraining | UnionStep | None, device: DeviceName, *,
              per_record: bool) -> tuple[tuple[str, ...], float]:
        """Warnings, and the made-up number that the model works for: as `fedround.learning.trial`."""

    def scored(self, tensors: Tensors, examples: Examples) -> tuple[Scored, Bools]:
        """As `fedround.learning.evaluate.scored_rows`."""

    def gradients(self, sought: Sought) -> AbstractContextManager[GradientSums]:
        """As `fedround.learning.sums.gradient_sums`."""
