"""The workers that train: this process, or several, on one machine or many. The result is the same, bit for bit.

The unit of work is a chunk of sites. How a cohort is cut into chunks follows from the plan alone, and so do each one's draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fedround.codec import Tensors, flatten
from fedround.errors import ContractError
from fedround.learning.examples import Examples
from fedround.learning.guard import Countdown
from fedround.learning.learn import learn
from fedround.learning.recipe import Recipe
from fedround.learning.spec import LocalTraining, Training
from fedround.learning.threads import one_thread
from fedround.learning.train import Trained
from fedround.simulation.chance import Chance
from fedround.simulation.jobs import Done, Job, Learnt, OneGenerator, Pool
from fedround.simulation.stacked import Stacked


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some sites' round."""

    number: int
    place: int
    """Which chunk of the round it is."""
    base: Tensors
    jobs: Sequence[Job]
    together: bool
    """Whether they are trained at once, or one after the other as a live site does."""
    training: Training
    """Of this round: a rule may have changed the agreed rate or steps."""


class Crew(Protocol):
    """Workers that train chunks."""

    def __call__(self, chunks: Iterable[Chunk]) -> Iterator[Learnt]:
        """What each gave, in their order."""


class Trainer:
    """Trains chunks in this process. A `Crew` of one."""

    def __init__(self, recipe: Recipe, rows: Mapping[str, Examples], training: Training, chance: Chance):
        self._recipe, self._rows, self._training, self._chance = recipe, rows, training, chance
        self._stacked: Stacked | None = None
        self._pool: Pool | None = None
        for examples in rows.values():
            recipe.check(examples)

    @property
    def stacked(self) -> Stacked:
        """The model for many sites."""
        if self._stacked is None:
            if not isinstance(self._training, LocalTraining):
                raise ContractError("only gradient steps can be taken for many sites at once")
            self._stacked = Stacked(self._recipe, self._training, next(iter(self._rows.values())))
        return self._stacked

    def __call__(self, chunks: Iterable[Chunk]) -> Iterator[Learnt]:
        """As `Crew`."""
        return map(self.train, chunks)

    def train(self, chunk: Chunk) -> Learnt:
        """One chunk."""
        with one_thread():
            return self._train(chunk)

    def _train(self, chunk: Chunk) -> Learnt:
        if chunk.together:
            if self._pool is None:
                self._pool = Pool(self._rows)
            draws = OneGenerator(self._chance.together(chunk.number, chunk.place))
            steps = chunk.training if isinstance(chunk.training, LocalTraining) else None
            return self.stacked.train(chunk.base, chunk.jobs, self._pool, draws, steps)
        trained = [self._alone(chunk, job) for job in chunk.jobs]
        return Learnt(np.stack([flatten(one.delta) for one in trained]),
                      [Done(one.steps, one.within_clip, one.private) for one in trained])

    def _alone(self, chunk: Chunk, job: Job) -> Trained:
        draws = self._chance.of(chunk.number, job.site).training(job.shift_D, job.rest.private)
        return learn(self._recipe, job.lesson(chunk.base, self._rows[job.site]), chunk.training, job.mechanism, draws,
                     Countdown(job.steps))
