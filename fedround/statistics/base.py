"""What every statistic is: a sum over a site's records of a vector of bounded length, noised once.

N records, D numbers of the statistic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field

from fedround.privacy.entries import Rows
from fedround.privacy.noise import GRID, NoiseSource
from fedround.privacy.spec import QUIETEST, GaussianCounts, NoMechanism
from fedround.values import Value

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


def _check_noise(noise_std: float) -> float:
    if 0 < noise_std < QUIETEST:
        raise ValueError(f"noise is 0, which a policy must allow by name, or at least {QUIETEST:g}")
    return noise_std


LOUDEST = 10_000
AskedNoise = Annotated[float, Field(ge=0, le=LOUDEST), AfterValidator(_check_noise)]
"""Standard deviation of the noise that a plan asks for, where one record's longest contribution has length 1."""


class Evidence(Protocol):
    """What a site has to compute from. It stays at the site; only a statistic's noised numbers leave."""

    def scores(self) -> Mapping[str, npt.NDArray[Any]]:
        """The base model on the rows that the site holds out, by name, (N, ...) each, in one order: what the task says of
        them (`fedround.learning.tasks.Scored`); of labels, "score", in [0, 1], and "truth", 0 or 1.
        """

    def summands(self) -> Float64:
        """What the task adds up of each of these rows, (N, C) (`fedround.learning.tasks.Kind.summands`)."""

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column of all the site's rows, (N,); None or NaN where a record has nothing there.

        Raises ContractError if there is no such column.
        """

    def encoded(self) -> tuple[Float64, Int64]:
        """The rows to train on as the recipe encodes them, all arrays side by side, (N, F), and their labels, (N,): for a
        recipe whose task has labels.
        """

    def held_out(self, name: str) -> npt.NDArray[Any]:
        """The same of the rows that `scores` is about, in its order. Raises as `column` and `scores`."""

    def replaced(self, public_KP: Float64, places: Sequence[int], key: bytes) -> Self:
        """The same of held-out rows that have the numbers at these places of an encoded row from one of K public rows; which
        one, the row itself decides (`fedround.learning.replaced`).
        """


class Axis(NamedTuple):
    """One axis of a table, for people."""

    name: str
    labels: tuple[str, ...]
    """What is at each place of it."""


class NoisedSum(Value):
    """What all statistics have in common. The numbers that leave are in units of `scale`: there the longest contribution of
    one record has length 1, as in a table of counts. So one mechanism prices all of them (`GaussianCounts`).
    """

    word: ClassVar[str]
    """By which a site's policy allows it to leave."""
    in_words: ClassVar[str]
    """What it is, in a sentence."""
    rows: ClassVar[Rows] = "all"
    """Of which rows it is computed."""
    reads_model: ClassVar[bool] = False
    """Whether it is about the base model, too."""
    room: ClassVar[float] = 1.0
    """Which share of the noise's cells a record's longest contribution may take: less than all where lengths are rounded."""

    noise_std: AskedNoise
    """Standard deviation of the Gaussian noise on each number, in units of `scale`; 0: none, which a policy must allow by
    name.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the table of numbers."""
        raise NotImplementedError

    @property
    def axes(self) -> tuple[Axis, ...]:
        """What the table's numbers are, in words."""
        raise NotImplementedError

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the rows, which it reads by itself."""
        return ()

    @property
    def scale(self) -> float:
        """What a number of the release is multiplied by: the length (L2) of the longest contribution of one record."""
        return 1.0

    @property
    def mechanism(self) -> GaussianCounts | NoMechanism:
        """What a release of it is charged as."""
        return NoMechanism() if self.noise_std == 0 else GaussianCounts(noise_std=self.noise_std)

    def in_cells(self, cells: int) -> Self:
        """The same sum, with so many of the noise's cells to a unit of `scale`: then the noise's standard deviation is
        GRID / cells units. (A release takes as many as its `noise_std` has room for, rounded down.)
        """
        return self.model_copy(update={"noise_std": GRID * self.room / (cells + 0.5)})

    def possible(self, table: Float64, leeway: float) -> bool:
        """Whether some records give such sums, if noise moved each by `leeway` at most."""
        return True

    def noised(self, evidence: Evidence, noise: NoiseSource) -> Float64:
        """The numbers that leave, in `shape`. noise: as in `fedround.statistics.release`."""
        raise NotImplementedError
