"""The server's half of a round.

::

    row       an update and the law of the noise in it
    weigh     what every member counts
    combine   updates, or their moving averages, become one delta
    step      the delta becomes the next model, and what the round after it continues

It is a function of signed documents and of the bytes that they name. So the coordinator that commits and the auditor that
checks compute the same. D coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, assert_never

import numpy as np
import numpy.typing as npt

from fedround import codec, optimizers
from fedround.aggregation import engine, fairness
from fedround.aggregation.engine import Aggregate
from fedround.aggregation.gate import fits_its_law
from fedround.aggregation.history import History, blend, with_upload
from fedround.aggregation.noise_law import NoiseLaw
from fedround.aggregation.rows import Numbers, Row
from fedround.aggregation.spec import Aggregation, uses_weights
from fedround.aggregation.sweep import Sweeper
from fedround.aggregation.verdict import Verdict
from fedround.codec import Tensors
from fedround.compression import wire
from fedround.compression.law import law_of_what_arrives
from fedround.learning.algorithms import Vectors
from fedround.learning.foreign.spec import Foreign
from fedround.learning.law import law_of
from fedround.learning.spec import LocalTraining
from fedround.learning.tasks import Task
from fedround.learning.trees.server import grow
from fedround.learning.trees.spec import Trees
from fedround.learning.union.spec import UnionStep
from fedround.privacy.spec import Mechanism, NoPrivacy
from fedround.statistics import Release
from fedround.terms import Terms

Float32 = npt.NDArray[np.float32]
_BLOCK = 1 << 18


# -- what an update is -------------------------------------------------------------------------------------------------


class SaidOfUpdate(Protocol):
    """What a site says of its update besides the numbers."""

    @property
    def mechanism(self) -> Mechanism:
        """What was applied."""

    @property
    def rows(self) -> int | None:
        """How many rows, where they are fewer than a batch."""

    @property
    def steps(self) -> int | None:
        """How many steps, where they are fewer than asked."""


def law(terms: Terms, said: SaidOfUpdate, read: wire.Read, size: int, source: str) -> NoiseLaw | None:
    """The law of the noise in what arrives; None: it is not known.

    read: the file's data, where it is compressed. Raises ContractError, naming `source`, if a gate must judge it and the law
    cannot be told.
    """
    trained = law_of(said.mechanism, terms.training, said.rows, said.steps)
    if terms.compression is None:
        return trained
    return law_of_what_arrives(terms.compression, trained, read, size, source, is_judged=terms.aggregation.gate is not None)


# -- what everybody counts ---------------------------------------------------------------------------------------------


def weigh(terms: Terms, task: Task, agreed: Mapping[str, float], told: Mapping[str, Release | None],
          past: Mapping[str, float]) -> dict[str, float]:
    """The weight of every member: as agreed, or by the terms' fairness.

    told: the score counts of the members that answered. past: the weights of the round before, if it had the same fairness.
    """
    how = terms.aggregation.fairness
    if how is None:
        return dict(agreed)
    losses = {site: None if said is None else task.mean_loss(said) for site, said in told.items()}
    return fairness.fair_weights(how, agreed, losses, past)


def loss_at(task: Task, told: Release) -> float | None:
    """A model's mean loss at a site, by its score counts, from 0 to 1; None: they do not tell. Six digits, so that other
    processors find the same.
    """
    loss = task.mean_loss(told)
    return None if loss is None else round(min(1.0, max(0.0, loss)), 6)


# -- from updates to one delta -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Average:
    """What the coordinator remembers of one site's uploads: a moving average of them, and the law of the noise in it.

    It is computed from what left the sites anyway, so it costs no privacy.
    """

    history: History
    numbers: Numbers


@dataclass(frozen=True, eq=False)
class Memory:
    """What the coordinator alone remembers between two rounds."""

    averages: Mapping[str, Average] = field(default_factory=dict)
    """With a history. A site that misses a round, or is left out of an aggregate, keeps the average that it had; a site that
    joins begins anew."""
    centre: Numbers | None = None
    """The last aggregate, where the rule begins with it."""


Shelf = Callable[[str, Iterator[Float32]], Numbers]
"""Where a site's new average is put, block by block: neither of them need fit into memory."""


@dataclass(frozen=True, eq=False)
class Combined:
    """One delta, the outcome of every update, and what may be remembered of the updates."""

    result: Aggregate
    rows: tuple[Row, ...]
    """As they were aggregated: uploads, or averages."""
    averages: Mapping[str, Average]
    """Of every row, with a history. One that was left out is not to be remembered: it would shift the average and its law."""

    @property
    def used(self) -> list[str]:
        """Whose updates entered the delta."""
        return [site for site, standing in self.result.standings.items() if standing.verdict is Verdict.USED]

    def remember(self, past: Mapping[str, Average]) -> dict[str, Average]:
        """The averages that the next round begins with, by name."""
        used = set(self.used)
        return dict(sorted({**past, **{site: new for site, new in self.averages.items() if site in used}}.items()))


def combine(how: Aggregation, size: int, rows: Sequence[Row], memory: Memory, shelf: Shelf, *, seed: bytes,
            root: Numbers | None = None, memory_budget_bytes: int = 64 << 20, sweeper: Sweeper | None = None) -> Combined:
    """What `how` makes of the rows, or of the sites' averages with these rows in them. Raises as `engine.aggregate` does."""
    averages, shown = dict[str, Average](), list(rows)
    if how.history > 0:
        for place, row in enumerate(rows):
            averages[row.site], shown[place] = _with_past(how, size, row, memory.averages.get(row.site), shelf)
    result = engine.aggregate(shown, how, size, seed=seed, memory_budget_bytes=memory_budget_bytes, centre=memory.centre,
                              root=root, sweeper=sweeper)
    return Combined(result, tuple(shown), averages)


def _with_past(how: Aggregation, size: int, row: Row, past: Average | None, shelf: Shelf) -> tuple[Average, Row]:
    """A site's average with this upload in it, and the row that is aggregated.

    An average hides what is wrong with one upload, above all missing noise. So an upload whose length does not fit its own
    law is shown to the gate as it is, instead of the average.
    """
    history, squares = with_upload(None if past is None else past.history, row.law, how.history), [0.0]

    def blocks() -> Iterator[Float32]:
        for start in range(0, size, _BLOCK):
            upload_B = read(row.numbers, start, min(_BLOCK, size - start))
            squares[0] += float(np.square(upload_B, dtype=np.float64).sum())
            yield blend(None if past is None else read(past.numbers, start, len(upload_B)), upload_B, history)

    average = Average(history, shelf(row.site, blocks()))
    if not fits_its_law(math.sqrt(squares[0]), row.law, how.gate, size):
        return average, row
    return average, Row(row.site, row.weight, average.numbers, history.law)


def read(numbers: Numbers, start: int, count: int) -> Float32:
    """So many numbers from `start` on."""
    block_B = np.empty(count, dtype=np.float32)
    numbers.read(start, block_B)
    return block_B


# -- from the delta to the next model ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Server:
    """The state at the beginning or at the end of a round."""

    model: Tensors
    optimizer: Vectors | None = None
    """The server optimizer's state; None where it has none, or begins."""
    served: Vectors = field(default_factory=dict)
    """What the local algorithm asks the server to remember."""

    def size(self, terms: Terms) -> int:
        """D: of the updates that are asked for."""
        return codec.coordinates(terms.sent(codec.schema_of(self.model)))


def step(terms: Terms, task: Task, before: Server, delta_D: Float32, used: Sequence[str],
         weights: Mapping[str, float]) -> Server:
    """What the round makes of its aggregate.

    used: whose updates entered it. weights: of every member of the federation, asked or not.
    Raises ContractError if the step leaves the range of float32, or the model cannot grow.
    """
    model, optimizer = moved(terms, task, before, delta_D, math.fsum(weights[site] for site in sorted(used)))
    share = share_of(used, weights, weighted=uses_weights(terms.aggregation))
    return Server(model, optimizer, terms.training.at_server(before.served, delta_D, share))


def moved(terms: Terms, task: Task, before: Server, delta_D: Float32,
          weight: float | None = None) -> tuple[Tensors, Vectors | None]:
    """The next model, and the optimizer's next state.

    weight: of the sites whose updates the delta is a mean of; None: it is no such mean.
    """
    match terms.training:
        case Trees():
            noised = not isinstance(terms.privacy, NoPrivacy)
            return grow(terms.training, task, before.model, delta_D, weight, noised=noised), None
        case LocalTraining() | UnionStep() | Foreign():
            return optimizers.step(before.model, before.optimizer, delta_D, terms.optimizer)
        case _:
            assert_never(terms.training)


def share_of(used: Sequence[str], weights: Mapping[str, float], *, weighted: bool) -> float:
    """The share of the federation that the sites `used` make up: by weight, or by number of sites if weights do not count."""
    counted = weights if weighted else dict.fromkeys(weights, 1.0)
    return min(1.0, sum(counted[site] for site in sorted(used)) / sum(counted[site] for site in sorted(weights)))


def keeps_centre(how: Aggregation) -> bool:
    """Whether the next round's rule begins with this round's aggregate."""
    return how.rule.begins_with_last
