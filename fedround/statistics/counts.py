"""Counts of records: one record is in one cell, and moves it by one.

N records, B bins.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field

from fedround.privacy.entries import Rows
from fedround.privacy.spec import QUIETEST, GaussianCounts, NoMechanism, Unit
from fedround.values import Value

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


def _check_noise(noise_std: float) -> float:
    if 0 < noise_std < QUIETEST:
        raise ValueError(f"noise is 0, which a policy must allow by name, or at least {QUIETEST:g}")
    return noise_std


LOUDEST = 10_000
AskedNoise = Annotated[float, Field(ge=0, le=LOUDEST), AfterValidator(_check_noise)]
"""Standard deviation of the noise that a plan asks for on counts."""


class Evidence(Protocol):
    """What a site has to count in. It stays at the site; only a statistic's noised cells leave."""

    def scores(self) -> tuple[Float64, Int64]:
        """The base model on the rows that the site holds out: what is scored, in [0, 1], and whether it is true, 0 or 1; (N,)
        each, in one order.
        """

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column of all the site's rows, (N,); None or NaN where a record has nothing there.

        Raises ContractError if there is no such column.
        """

    def held_out(self, name: str) -> npt.NDArray[Any]:
        """The same of the rows that `scores` is about, in its order. Raises as `column` and `scores`."""


class Axis(NamedTuple):
    """One axis of a table, for people."""

    name: str
    labels: tuple[str, ...]
    """What is counted at each place of it."""


class Counts(Value):
    """What every table of counts has in common."""

    word: ClassVar[str]
    """By which a site's policy allows it to leave."""
    in_words: ClassVar[str]
    """What it is, in a sentence."""
    rows: ClassVar[Rows] = "all"
    """Of which rows it counts."""
    reads_model: ClassVar[bool] = False
    """Whether it is about the base model, too."""

    noise_std: AskedNoise
    """Standard deviation of the Gaussian noise on each cell; 0: none, which a policy must allow by name."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the table."""
        raise NotImplementedError

    @property
    def axes(self) -> tuple[Axis, ...]:
        """What the table's cells are, in words."""
        raise NotImplementedError

    def cells(self, evidence: Evidence) -> Int64:
        """The exact table. Every record of the site is in one cell at most."""
        raise NotImplementedError

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the rows, which it reads by itself."""
        return ()

    def sensitivity(self, unit: Unit) -> float | None:
        """The L2 sensitivity: how far the cells move if one `unit`'s contribution is removed; None: no bound is known."""
        return 1.0 if unit == "record" else None

    @property
    def mechanism(self) -> GaussianCounts | NoMechanism:
        """What a release of it is charged as."""
        return NoMechanism() if self.noise_std == 0 else GaussianCounts(noise_std=self.noise_std)
