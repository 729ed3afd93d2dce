"""Local training: a few steps on a site's own rows, plain or differentially private.

N examples, D coordinates (in the order of `codec.flatten`), T steps.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fedround.codec import Schema, Tensors, flatten, schema_of, unflatten
from fedround.errors import Cancelled, ContractError
from fedround.learning.apart import Bools, GradientSums, Int64, RowBound
from fedround.learning.descent import Descent, scale
from fedround.learning.gradients import Clip
from fedround.learning.guard import Guard
from fedround.learning.lesson import Lesson
from fedround.learning.noised import noised_change
from fedround.learning.persons import NOBODY
from fedround.learning.recipe import Recipe
from fedround.learning.spec import LocalTraining, Training
from fedround.learning.sums import gradient_sums
from fedround.privacy.noise import FINE, GRID, NoiseSource, noised_counts
from fedround.privacy.spec import DpFtrl, DpSgd, PerRecord, TrainingMechanism
from fedround.privacy.tree import TreeNoise
from fedround.spoken import how_many

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

_FINER = int(FINE / GRID).bit_length() - 1
"""Bits by which sums are finer than what is made of them."""


@dataclass(frozen=True)
class Trained:
    """The result of local training. With a privacy mechanism, all of it except `private` may leave."""

    delta: Tensors
    """The model's change: names and shapes of the base model, float32."""
    within_clip: float | None
    """Where they are counted: the noised share of gradients within the clip norm. It may be below 0 or above 1."""
    steps: int
    """How many steps were done: fewer than asked if the time was up and the plan keeps partial work."""
    private: Tensors = field(default_factory=dict)
    """The private part after these steps, for the next round at this site; never to be sent."""


def train(recipe: Recipe, lesson: Lesson, training: LocalTraining, mechanism: TrainingMechanism, noise: NoiseSource,
          guard: Guard) -> Trained:
    """The model's change after `training.local_steps` steps from `lesson.base`.

    Every step draws each row independently (Poisson sampling) and divides by the expected batch, which does not depend
    on the draw. `DpFtrl` instead takes the next `batch_size` rows in their order, from `lesson.start` on. A row that counts
    for nothing (`Examples.counts_N`) takes its turn as any other, and adds zeros. With

    * `DpSgd` (Abadi et al. 2016, arXiv:1607.00133) each row's gradient is clipped to `clip_norm` and
      N(0, (noise_multiplier · clip_norm)²) is added to every coordinate of the sum, also when the batch is empty;
    * `DpSgd` with a `count_noise_std` the rows within the clip norm are counted, too (Andrew et al. 2021, arXiv:1905.03871);
    * `DpSgd` with `rows_per_person` a step draws `lesson.persons`, and the mean gradient of each one's rows is clipped;
    * `DpFtrl` (Kairouz et al. 2021, arXiv:2103.00039) the noise is a tree's over the steps, begun anew with every call;
    * `GaussianUpdate` the steps are plain, and the whole change is clipped and noised once.

    What follows from a step's gradient (`Descent`: the proximal term, the correction, momentum, Adam) is computed from it
    when it is noised already. The private part of `lesson.rest` is trained by the same steps: gradients are clipped over both
    together, and noised on every coordinate (`GaussianUpdate`: the private part is not noised; `Parts` says why).

    guard: asked before every step whether to stop; and whether time is up after every step but the last, unless the plan says
    partial = "refuse". If it is, the steps so far are returned, scaled if the plan normalises. They are a prefix of the steps
    that the mechanism covers, and all steps were charged.

    Promises: what is returned satisfies what an accountant says of `mechanism`, provided `noise` is secret and fresh
    (the number of rows counts as public, except with `GaussianUpdate`), to the last bit (`fedround.privacy.noise`); same
    inputs, same bytes on one machine's processor with one thread. Not promised: the same bytes from an accelerator; how long
    it takes, and so how many steps are done in a given time; anything about numbers that the caller derives from the rows in
    other ways.

    Raises Cancelled if the guard says so before a step; ContractError if the model cannot be trained so, or the base is not
    of this model, or the mechanism was charged for another number of steps or other batches, or is of persons and nobody says
    whose rows are whose; SetupError if this machine does not have the device.
    """
    _check(mechanism, training, lesson)
    base, expected, steps = lesson.base, _expected_batch(mechanism, training, lesson.units), 0
    counts_N = lesson.examples.counts_N
    with gradient_sums(recipe, lesson.sought(training, _bound(mechanism, expected))) as sums:
        schema, weights_D = sums.schema, sums.weights_D
        shared_D, tensors = _places(schema, base), unflatten(weights_D, schema)
        anchor_D = weights_D if training.algorithm.pull == 0 else flatten({**tensors, **(lesson.towards or {})})
        descent = Descent(training, anchor_D, _spread(lesson.shift_D, shared_D))
        noised = NoisedGradients(sums, mechanism, noise) if isinstance(mechanism, PerRecord) else None
        sums.begin(int(noise.random(1)[0] * 2**53))       # for dropout and the like inside the model
        for units in _batches(mechanism, training, lesson.units, noise, lesson.start):
            if guard():
                raise Cancelled("training was stopped between two steps; nothing was released")
            drawn = lesson.rows_of(units)
            sum_D = (sums.plain(drawn[counts_N[drawn]]) if noised is None
                     else noised(drawn, counts_N[drawn] & (drawn != NOBODY)))
            descent.move(weights_D, sum_D, expected)
            steps += 1
            if training.partial != "refuse" and steps < asked_of(mechanism, training) and guard.time_is_up():
                break
        # Numbers that layers keep themselves were never noised. If single records are protected, they are discarded after
        # the round.
        kept = {} if noised is not None else sums.kept()
    own = {name: array.copy() for name, array in tensors.items() if name not in base}
    for name, array in base.items():
        tensors[name] -= array          # in place: nobody needs the weights any more
    delta_D = weights_D[shared_D]
    delta_D *= np.float32(scale(training, steps))
    delta_D = noised_change(delta_D, mechanism, noise)
    within = 0.5 + noised.surplus / (2 * steps * expected) if noised is not None and noised.counts else None
    return Trained(unflatten(delta_D, schema_of(base)), within, steps, {**lesson.rest.private, **kept, **own})


def _places(schema: Schema, base: Tensors) -> npt.NDArray[np.bool_] | slice:
    """Where the coordinates of `base` are among those of `schema`."""
    if len(schema) == len(base):
        return slice(None)
    return np.concatenate([np.full(math.prod(spec.shape), spec.name in base) for spec in schema])


def _spread(shift_D: Float32 | None, shared_D: npt.NDArray[np.bool_] | slice) -> Float32 | None:
    """An algorithm corrects only what travels; the private part follows its own gradients."""
    if shift_D is None or isinstance(shared_D, slice):
        return shift_D
    spread_D = np.zeros(len(shared_D), np.float32)
    spread_D[shared_D] = shift_D
    return spread_D


class NoisedGradients:
    """The clipped and noised sum of gradients of one batch after the other."""

    def __init__(self, sums: GradientSums, mechanism: PerRecord, noise: NoiseSource):
        self._sums, self._noise, self._clip = sums, noise, _clip(mechanism)
        self._each = rows_of_one(mechanism)
        draw = functools.partial(noise.cells, len(sums.weights_D))
        self._next = TreeNoise(draw).next if isinstance(mechanism, DpFtrl) else draw
        self._count_noise_std = mechanism.count_noise_std if isinstance(mechanism, DpSgd) else None
        self.surplus = 0.0
        """Where they are counted: rows within the clip norm minus rows that were not, noised, over all batches so far. Each
        row counts +1 or -1, so the count changes by one when a row is removed. A count of only the rows within would cost
        twice as much. Of persons, the same with each one's mean gradient."""

    @property
    def counts(self) -> bool:
        """Whether rows within the clip norm are counted."""
        return self._count_noise_std is not None

    def __call__(self, rows_B: Int64, there_B: Bools) -> Float64:
        """The sum, (D,)."""
        return self.cells(rows_B, there_B) * (self._clip.cell * (FINE / GRID))

    def cells(self, rows_B: Int64, there_B: Bools) -> Float64:
        """The same in cells of `GRID` / noise_multiplier to a clip norm: whole numbers and a half."""
        cells_D, within = self._sums.bounded(rows_B, there_B)
        cells_D += self._next()
        if self._count_noise_std is not None:
            surplus = np.array([2 * within - int(there_B.reshape(-1, self._each).any(1).sum())])
            self.surplus += float(noised_counts(surplus, 2 * self._count_noise_std, self._noise)[0])
        coarse_D: Float64 = (cells_D >> _FINER).astype(np.float64)
        coarse_D += 0.5
        return coarse_D


def _batches(mechanism: TrainingMechanism, training: LocalTraining, rows: int, noise: NoiseSource,
             start: int) -> Iterator[npt.NDArray[np.int64]]:
    """Which rows each step takes: the next ones in their order, or each by its own draw."""
    rate = mechanism.sampling_rate if isinstance(mechanism, DpSgd) else training.sampling_rate(rows)
    for step in range(asked_of(mechanism, training)):
        if isinstance(mechanism, DpFtrl):
            yield (start + step * mechanism.batch_size + np.arange(mechanism.batch_size)) % rows
        else:
            yield np.flatnonzero(noise.random(rows) < rate)


def asked_of(mechanism: TrainingMechanism, training: Training) -> int:
    """How many steps a site does if its time suffices: those of the plan, as far as its mechanism covers them."""
    return min(mechanism.steps, training.local_steps) if isinstance(mechanism, PerRecord) else training.local_steps


def _expected_batch(mechanism: TrainingMechanism, training: LocalTraining, rows: int) -> float:
    if isinstance(mechanism, DpFtrl):
        return mechanism.batch_size
    return rows * (mechanism.sampling_rate if isinstance(mechanism, DpSgd) else training.sampling_rate(rows))


def _bound(mechanism: TrainingMechanism, expected: float) -> RowBound | None:
    return bound_of(mechanism, expected) if isinstance(mechanism, PerRecord) else None


def bound_of(mechanism: PerRecord, expected: float) -> RowBound:
    """How each row's part is bounded. expected: of rows, or persons, in a batch."""
    return RowBound(_clip(mechanism), rows_of_one(mechanism), expected)


def rows_of_one(mechanism: PerRecord) -> int:
    """How many rows, one after the other, are one person's."""
    return (mechanism.rows_per_person if isinstance(mechanism, DpSgd) else None) or 1


def _clip(mechanism: PerRecord) -> Clip:
    return Clip(mechanism.clip_norm, mechanism.noise_multiplier * mechanism.clip_norm / FINE)


def _check(mechanism: TrainingMechanism, training: LocalTraining, lesson: Lesson) -> None:
    """Raise ContractError unless the mechanism covers exactly this training."""
    rows = lesson.units
    check_persons(mechanism, lesson)
    if isinstance(mechanism, PerRecord):
        if not training.fewest_paid <= mechanism.steps <= training.paid:
            raise ContractError(f"the mechanism covers {how_many(mechanism.steps, 'step')}, the plan asks for "
                                f"{training.paid}")
        check_exact(mechanism.noise_multiplier, rows)
    if isinstance(mechanism, DpFtrl) and mechanism.steps * mechanism.batch_size > rows:
        raise ContractError(f"{mechanism.steps} batches of {mechanism.batch_size} rows would use some of {rows} rows twice, "
                            "and the mechanism covers once")


def check_persons(mechanism: TrainingMechanism, lesson: Lesson) -> None:
    """Raise ContractError unless persons are told apart where the mechanism is of persons, and as it says."""
    most = None if lesson.persons is None else lesson.persons.most
    if most != (mechanism.rows_per_person if isinstance(mechanism, DpSgd) else None):
        raise ContractError("the mechanism is of persons and nobody says whose rows are whose, or the other way round")


def check_exact(noise_multiplier: float, rows: int) -> None:
    """Raise ContractError unless so many clipped rows are summed exactly: in cells of `GRID`, where halves are exact below
    2**52, the sum must stay well below.

    A sum in cells of `FINE`, in integers of 64 bits, goes round if half of so many rows are in one batch and all point the
    same way: it is of no use then, and as private as any other, since integers that go round add up exactly, too.
    """
    if rows > noise_multiplier * 2 ** 50 / GRID:
        raise ContractError(f"{rows} rows are too many to be summed exactly under a noise multiplier of "
                            f"{noise_multiplier:g}: ask for more noise, that is, for a smaller epsilon")
