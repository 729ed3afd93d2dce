"""What simulated sites are asked in a round, what they give, and where their randomness comes from.

Legend: S sites, R the most rows that one of them has, B rows of a batch, padded to the largest, D coordinates.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fedround.codec import Tensors
from fedround.learning.batch import Batch, batch_of
from fedround.learning.examples import Examples, joined
from fedround.learning.lesson import Lesson
from fedround.learning.parts import NO_REST, Rest
from fedround.learning.persons import Persons
from fedround.learning.spec import LocalTraining
from fedround.privacy.spec import DpSgd, TrainingMechanism

if TYPE_CHECKING:
    import torch

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


class Job(NamedTuple):
    """What one site does in one round."""

    site: str
    mechanism: TrainingMechanism
    start: int = 0
    """The first row of the round, where rows are taken in their order."""
    steps: int | None = None
    """After so many steps its time is up; None: it does all."""
    shift_D: Float32 | None = None
    """What the algorithm adds to every gradient."""
    rest: Rest = NO_REST
    """What the model has at this site besides what travels."""
    persons: Persons | None = None
    """Whose rows are whose, where persons are protected."""
    cluster: int | None = None
    """Which of several models it trains; None: there is one for all."""

    def lesson(self, base: Tensors, examples: Examples) -> Lesson:
        """What this site's training is about, from this model and on its rows."""
        return Lesson(base, examples, self.rest, self.persons, self.start, self.shift_D)


@dataclass(frozen=True, eq=False)
class Done:
    """What is known of a job that was done, besides the update's numbers."""

    steps: int
    within_clip: float | None
    """Where they are counted: the noised share of gradients within the clip norm."""
    private: Tensors = field(default_factory=dict)
    """What the site's private part has become; empty where everything travels."""


@dataclass(frozen=True, eq=False)
class Learnt:
    """What some sites' training gave, in the order of their jobs."""

    delta_SD: Float32
    done: Sequence[Done]


class StackDraws(Protocol):
    """Where the randomness of sites that are trained together comes from."""

    def seed(self) -> int:
        """For dropout and the like inside the model."""

    def chosen(self, rate_S: Float64, rows_S: npt.NDArray[np.int64]) -> torch.Tensor:
        """Whether each row is in a step's batch, each by its own draw, (S, R), bool; False beyond a site's rows."""

    def normal(self, sites: int, size: int) -> torch.Tensor:
        """Standard normal numbers, (S, size), float32."""


class OneGenerator:
    """Fast draws, for all sites together."""

    def __init__(self, seed: int):
        import torch

        self._generator = torch.Generator().manual_seed(seed)

    def seed(self) -> int:
        """As `StackDraws`."""
        import torch

        return int(torch.randint(2**31, (1,), generator=self._generator))

    def chosen(self, rate_S: Float64, rows_S: npt.NDArray[np.int64]) -> torch.Tensor:
        """As `StackDraws`."""
        import torch

        most = int(rows_S.max())
        drawn_SR = torch.rand(len(rows_S), most, generator=self._generator)
        there_SR = torch.arange(most) < torch.from_numpy(rows_S)[:, None]
        return (drawn_SR < torch.from_numpy(rate_S)[:, None]) & there_SR

    def normal(self, sites: int, size: int) -> torch.Tensor:
        """As `StackDraws`."""
        import torch

        return torch.randn(sites, size, generator=self._generator)


class Pool:
    """The rows of all sites, one after the other, so that a chunk's batches are picked at once."""

    def __init__(self, rows: Mapping[str, Examples]):
        self.rows = batch_of(joined(list(rows.values())))
        self.count = {site: len(examples) for site, examples in rows.items()}
        """How many rows a site has."""
        self.first = dict(zip(self.count, np.cumsum([0, *self.count.values()]).tolist(), strict=False))
        """Where a site's rows begin."""
        self._whole: tuple[list[str], tuple[Batch, torch.Tensor]] | None = None

    def whole(self, sites: list[str], gather: Callable[[], tuple[Batch, torch.Tensor]]) -> tuple[Batch, torch.Tensor]:
        """All rows of these sites, which `gather` brings together; the last ones are at hand, for the next step and round,
        unless the model has written into them.
        """
        if self._whole is None or self._whole[0] != sites or self._whole[1][0].is_changed:
            self._whole = sites, gather()
        return self._whole[1]


class Batches:
    """The padded batches of some sites, step by step."""

    def __init__(self, jobs: Sequence[Job], pool: Pool, training: LocalTraining, draws: StackDraws):
        import torch

        self._pool, self._draws, self._sites = pool, draws, [job.site for job in jobs]
        self._rows_S = np.array([pool.count[job.site] for job in jobs])
        self._rate_S = np.array(_rates(jobs, pool, training))
        self.expected_S = self._rate_S * self._rows_S
        """What each site divides its sums by: the expected batch."""
        self._first_S1 = torch.tensor([pool.first[job.site] for job in jobs])[:, None]
        self._all_SR: torch.Tensor | None = None

    def next(self) -> tuple[Batch, torch.Tensor]:
        """Rows, (S, B, ...), and 1 for every one that is there, (S, B)."""
        chosen_SR = self._draws.chosen(self._rate_S, self._rows_S) if self._all_SR is None else self._all_SR
        if (self._rate_S < 1).any():
            return self._gather(chosen_SR)
        self._all_SR = chosen_SR                # every row in every step
        return self._pool.whole(self._sites, lambda: self._gather(chosen_SR))

    def _gather(self, chosen_SR: torch.Tensor) -> tuple[Batch, torch.Tensor]:
        import torch

        count_S = chosen_SR.sum(dim=1)
        site_M, row_M = chosen_SR.nonzero(as_tuple=True)
        place_M = torch.arange(len(site_M)) - (count_S.cumsum(0) - count_S)[site_M]
        most = max(1, int(count_S.max()))
        row_SB = torch.zeros(len(count_S), most, dtype=torch.int64)     # what is padded repeats the first row, and counts 0
        row_SB[site_M, place_M] = row_M
        row_SB += self._first_S1
        valid_SB = (torch.arange(most) < count_S[:, None]).float()
        return self._pool.rows.at(row_SB), valid_SB


def _rates(jobs: Sequence[Job], pool: Pool, training: LocalTraining) -> list[float]:
    of_rows = functools.cache(training.sampling_rate)       # many sites have equally many
    return [job.mechanism.sampling_rate if isinstance(job.mechanism, DpSgd) else of_rows(pool.count[job.site])
            for job in jobs]
