"""Local training: a few steps of SGD on a site's own rows, plain or differentially private.

N examples, D coordinates (in the order of `codec.flatten`), T steps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedround.codec import Tensors, coordinates, flatten, schema_of, unflatten
from fedround.errors import Cancelled, ContractError
from fedround.learning.gradients import Clip, clipped_sum, clipped_vector, gradient_sum
from fedround.learning.recipe import Examples, Recipe, check_model
from fedround.privacy.noise import GRID, NoiseSource, noised_counts
from fedround.privacy.spec import AdaptiveDpSgd, DpFtrl, DpSgd, GaussianUpdate, NoMechanism
from fedround.privacy.tree import TreeNoise
from fedround.types import LocalTraining

if TYPE_CHECKING:
    import torch
    from torch import nn

Float64 = npt.NDArray[np.float64]

PerRecord = DpSgd | AdaptiveDpSgd | DpFtrl
TrainingMechanism = PerRecord | GaussianUpdate | NoMechanism


@dataclass(frozen=True)
class Trained:
    """What local training gives: everything in it may leave, if the mechanism is one."""

    delta: Tensors
    """The model's change: names and shapes of the base model, float32."""
    within_clip: float | None
    """`AdaptiveDpSgd`: the noised share of gradients within the clip norm. It may be below 0 or above 1."""


def sampling_rate(training: LocalTraining, rows: int) -> float:
    """The chance of each row to be in a step's batch, so that `batch_size` rows are expected (at most all of them)."""
    if rows < 1:
        raise ContractError("there are no rows to train on; check the site's training file")
    return min(1.0, training.batch_size / rows)


def train(recipe: Recipe, base: Tensors, examples: Examples, training: LocalTraining, mechanism: TrainingMechanism,
          noise: NoiseSource, cancelled: Callable[[], bool]) -> Tensors:
    """The delta of `train_and_count`."""
    return train_and_count(recipe, base, examples, training, mechanism, noise, cancelled).delta


def train_and_count(recipe: Recipe, base: Tensors, examples: Examples, training: LocalTraining,
                    mechanism: TrainingMechanism, noise: NoiseSource, cancelled: Callable[[], bool],
                    start: int = 0) -> Trained:
    """The model's change after `training.local_steps` steps from `base`.

    Every step draws each row independently (Poisson sampling) and divides by the expected batch, which does not depend
    on the draw. `DpFtrl` instead takes the next `batch_size` rows in their order, from row `start` on. With

    * `DpSgd` (Abadi et al. 2016, arXiv:1607.00133) each row's gradient is clipped to `clip_norm` and
      N(0, (noise_multiplier · clip_norm)²) is added to every coordinate of the sum, also when the batch is empty;
    * `AdaptiveDpSgd` the same, and the rows within the clip norm are counted (Andrew et al. 2021, arXiv:1905.03871);
    * `DpFtrl` (Kairouz et al. 2021, arXiv:2103.00039) the noise is a tree's over the steps, begun anew with every call;
    * `GaussianUpdate` the steps are plain, and the whole change is clipped and noised once.

    Promises: what is returned satisfies what an accountant says of `mechanism`, provided `noise` is secret and fresh
    (the number of rows counts as public, except with `GaussianUpdate`), to the last bit (`fedround.privacy.noise`); same
    inputs, same bytes on one machine with one thread. Promises nothing about how long it takes, or about numbers that the
    caller derives from `examples` by other ways.

    Raises Cancelled if `cancelled()` is true before a step; ContractError if the model cannot be trained so, or `base`
    is not of this model, or the mechanism was charged for another number of steps or other batches.
    """
    import torch

    _check(mechanism, training, len(examples))
    schema = schema_of(base)
    model = recipe.build_model()
    check_model(model, recipe.name)
    check_fits(recipe, model, base)
    # torch looks at the weights through these views, so that a step on the flat vector is a step of the model.
    weights_D = flatten(base)
    parameters = {name: torch.from_numpy(view) for name, view in unflatten(weights_D, schema).items()}
    features_NF, labels_N = torch.from_numpy(examples.features_NF), torch.from_numpy(examples.labels_N).float()

    expected = _expected_batch(mechanism, training, len(examples))
    noised = _NoisedSum(mechanism, noise, coordinates(schema)) if isinstance(mechanism, PerRecord) else None
    velocity_D = np.zeros(coordinates(schema))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(int(noise.random(1)[0] * 2**53))       # for dropout and the like inside the model
        for rows in _batches(mechanism, training, len(examples), noise, start):
            if cancelled():
                raise Cancelled("training was stopped between two steps; nothing was released")
            batch = features_NF[torch.from_numpy(rows)], labels_N[torch.from_numpy(rows)]
            gradient_D = (gradient_sum if noised is None else noised)(model, parameters, *batch)
            velocity_D = training.momentum * velocity_D + gradient_D / expected
            weights_D -= (training.learning_rate * velocity_D).astype(np.float32)
    delta_D = weights_D - flatten(base)
    if isinstance(mechanism, GaussianUpdate):
        clip = _clip(mechanism)
        delta_D = ((clipped_vector(delta_D, clip) + noise.normal(GRID, len(delta_D))) * clip.cell).astype(np.float32)
    return Trained(unflatten(delta_D, schema), None if noised is None or not isinstance(mechanism, AdaptiveDpSgd) else
                   0.5 + noised.surplus / (2 * training.local_steps * expected))


class _NoisedSum:
    """The clipped and noised sum of gradients of one batch after the other."""

    def __init__(self, mechanism: PerRecord, noise: NoiseSource, size: int):
        self._mechanism, self._noise, self._clip = mechanism, noise, _clip(mechanism)
        draw = functools.partial(noise.normal, GRID, size)
        self._next = TreeNoise(draw).next if isinstance(mechanism, DpFtrl) else draw
        self.surplus = 0.0
        """`AdaptiveDpSgd`: rows within the clip norm minus rows that were not, noised, over all batches so far. A row moves
        it by one, which is half of what it would cost to count only those within."""

    def __call__(self, model: nn.Module, parameters: Mapping[str, torch.Tensor], features_BF: torch.Tensor,
                 labels_B: torch.Tensor) -> Float64:
        cells_D, within = clipped_sum(model, parameters, features_BF, labels_B, self._clip)
        cells_D += self._next()
        if isinstance(self._mechanism, AdaptiveDpSgd):
            surplus = np.array([2 * within - len(labels_B)])
            self.surplus += float(noised_counts(surplus, 2 * self._mechanism.count_noise_std, self._noise)[0])
        return cells_D * self._clip.cell


def _batches(mechanism: TrainingMechanism, training: LocalTraining, rows: int, noise: NoiseSource,
             start: int) -> Iterator[npt.NDArray[np.int64]]:
    """Which rows each step takes: the next ones in their order, or each by its own draw."""
    rate = mechanism.sampling_rate if isinstance(mechanism, DpSgd | AdaptiveDpSgd) else sampling_rate(training, rows)
    for step in range(training.local_steps):
        if isinstance(mechanism, DpFtrl):
            yield (start + step * mechanism.batch_size + np.arange(mechanism.batch_size)) % rows
        else:
            yield np.flatnonzero(noise.random(rows) < rate)


def _expected_batch(mechanism: TrainingMechanism, training: LocalTraining, rows: int) -> float:
    if isinstance(mechanism, DpFtrl):
        return mechanism.batch_size
    return rows * (mechanism.sampling_rate if isinstance(mechanism, DpSgd | AdaptiveDpSgd) else sampling_rate(training, rows))


def _clip(mechanism: PerRecord | GaussianUpdate) -> Clip:
    return Clip(mechanism.clip_norm, mechanism.noise_multiplier * mechanism.clip_norm / GRID)


def _check(mechanism: TrainingMechanism, training: LocalTraining, rows: int) -> None:
    """Raise ContractError unless the mechanism covers exactly this training."""
    if isinstance(mechanism, PerRecord):
        if mechanism.steps != training.local_steps:
            raise ContractError(f"the mechanism covers {mechanism.steps} steps, the plan asks for {training.local_steps}")
        # Whole numbers are exact below 2**53, halves below 2**52: all rows together must stay well inside.
        if rows > mechanism.noise_multiplier * 2 ** 50 / GRID:
            raise ContractError(f"{rows} rows are too many to be summed exactly under a noise multiplier of "
                                f"{mechanism.noise_multiplier:g}: ask for more noise, that is, for a smaller epsilon")
    if isinstance(mechanism, DpFtrl) and mechanism.steps * mechanism.batch_size > rows:
        raise ContractError(f"{mechanism.steps} batches of {mechanism.batch_size} rows would use some of {rows} rows twice, "
                            "and the mechanism covers once")


def check_fits(recipe: Recipe, model: nn.Module, tensors: Tensors) -> None:
    """Raise ContractError unless `tensors` are exactly this model's parameters."""
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    if {name: array.shape for name, array in tensors.items()} != expected:
        wrong = sorted(name for name in {*expected, *tensors}
                       if name not in tensors or tensors[name].shape != expected.get(name))
        raise ContractError(f"recipe '{recipe.name}': its model and the given tensors differ in {', '.join(wrong[:5])}")
