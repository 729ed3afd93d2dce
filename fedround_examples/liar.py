"""Sites that lie, for demonstrations: the real site process, with a false update.

    python -m fedround_examples.liar FOLDER...

This lie harms a plain mean most: the same push of length 20 in every round, in a direction that was drawn once, on top of the
declared noise. Everything else is as at every site: keys, policy, ledger, signature.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedround import codec
from fedround.learning.learn import learn
from fedround.learning.train import Trained
from fedround.rounds import site
from fedround.simulation.crew import Chunk, Crew
from fedround.simulation.jobs import Learnt
from site_workers.host import host

LENGTH = 20.0
"""The length of the push. An honest update of a bank carries a signal of 0.2 to 1.4; the clip norm would allow 22."""


def push_D(size: int) -> npt.NDArray[np.float32]:
    """The direction, as one vector; the same for every liar and every round."""
    drawn_D = np.random.default_rng(3).standard_normal(size)
    return np.asarray(LENGTH * drawn_D / np.linalg.norm(drawn_D), np.float32)


def lying(*asked: Any, **options: Any) -> Trained:
    """As `fedround.learning.learn.learn`, with the push added to what comes of it."""
    honest = learn(*asked, **options)
    flat_D = codec.flatten(honest.delta)
    return dataclasses.replace(honest, delta=codec.unflatten(flat_D + push_D(len(flat_D)), codec.schema_of(honest.delta)))


@dataclass(frozen=True)
class Lying:
    """The same for simulated sites: `crew` trains them, and the names say which of them lie."""

    crew: Crew
    liars: frozenset[str]

    def __call__(self, chunks: Iterable[Chunk]) -> Iterator[Learnt]:
        """As `Crew`."""
        for chunk in chunks:
            for learnt in self.crew([chunk]):
                delta_SD = learnt.delta_SD.copy()
                for place, job in enumerate(chunk.jobs):
                    if job.site in self.liars:
                        delta_SD[place] += push_D(delta_SD.shape[1])
                yield dataclasses.replace(learnt, delta_SD=delta_SD)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    vars(site)["learn"] = lying
    sys.exit(1 if host([Path(argument) for argument in sys.argv[1:]]) else 0)
