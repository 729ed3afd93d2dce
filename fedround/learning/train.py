"""Local training: a few steps of SGD on a site's own rows, plain or differentially private (DP-SGD).

N examples, B of a batch, F features, D coordinates (in the order of `codec.flatten`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from fedround.codec import Tensors, coordinates, flatten, schema_of, unflatten
from fedround.errors import Cancelled, ContractError
from fedround.learning.recipe import Examples, Recipe, check_model
from fedround.types import DpSgd, LocalTraining, NoMechanism

if TYPE_CHECKING:
    import torch
    from torch import nn

Float64 = npt.NDArray[np.float64]

CHUNK = 256
"""Rows whose gradients are held at once: peak memory is about 4 · CHUNK · D bytes, whatever the batch."""

CLIP_MARGIN = 1e-6
"""Gradients are clipped this much (relative) below the clip norm, so that float32 rounding never exceeds it."""


class NoiseSource(Protocol):
    """Where all randomness of a site comes from. With privacy: the site's secret, and never the same draw twice."""

    def random(self, size: int) -> Float64:
        """Uniform in [0, 1)."""
        ...

    def normal(self, scale: float, size: int) -> Float64:
        """Gaussian, mean 0, standard deviation `scale`."""
        ...


def sampling_rate(training: LocalTraining, rows: int) -> float:
    """The chance of each row to be in a step's batch, so that `batch_size` rows are expected (at most all of them)."""
    if rows < 1:
        raise ContractError("there are no rows to train on; check the site's training file")
    return min(1.0, training.batch_size / rows)


def train(recipe: Recipe, base: Tensors, examples: Examples, training: LocalTraining, mechanism: DpSgd | NoMechanism,
          noise: NoiseSource, cancelled: Callable[[], bool]) -> Tensors:
    """The model's change after `training.local_steps` steps from `base`: names and shapes of `base`, float32.

    Every step draws each row independently (Poisson sampling) and divides by the expected batch, which does not depend
    on the draw. With `DpSgd` (Abadi et al. 2016, arXiv:1607.00133) each row's gradient is clipped to `clip_norm` and
    N(0, (noise_multiplier · clip_norm)²) is added to every coordinate of the sum, also when the batch is empty.

    Promises: what is returned satisfies what an accountant says of `mechanism`, provided `noise` is secret and fresh
    (the number of rows counts as public); same inputs, same bytes on one machine with one thread. Promises nothing
    about how long it takes, or about numbers that the caller derives from `examples` by other ways.

    Raises Cancelled if `cancelled()` is true before a step; ContractError if the model cannot be trained so, or `base`
    is not of this model, or the mechanism was charged for another number of steps.
    """
    import torch

    rate, clip_norm = sampling_rate(training, len(examples)), None
    if isinstance(mechanism, DpSgd):
        if mechanism.steps != training.local_steps:
            raise ContractError(f"the mechanism covers {mechanism.steps} steps, "
                                f"the plan asks for {training.local_steps}")
        rate, clip_norm = mechanism.sampling_rate, mechanism.clip_norm

    schema = schema_of(base)
    model = recipe.build_model()
    check_model(model, recipe.name)
    check_fits(recipe, model, base)
    # torch looks at the weights through these views, so that a step on the flat vector is a step of the model.
    weights_D = flatten(base)
    parameters = {name: torch.from_numpy(view) for name, view in unflatten(weights_D, schema).items()}
    features_NF, labels_N = torch.from_numpy(examples.features_NF), torch.from_numpy(examples.labels_N).float()

    velocity_D = np.zeros(coordinates(schema))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(int(noise.random(1)[0] * 2**53))       # for dropout and the like inside the model
        for _ in range(training.local_steps):
            if cancelled():
                raise Cancelled("training was stopped between two steps; nothing was released")
            batch = torch.from_numpy(np.flatnonzero(noise.random(len(examples)) < rate))
            gradient_D = gradient_sum(model, parameters, features_NF[batch], labels_N[batch], clip_norm)
            if isinstance(mechanism, DpSgd):
                gradient_D += noise.normal(mechanism.noise_multiplier * mechanism.clip_norm, gradient_D.size)
            velocity_D = training.momentum * velocity_D + gradient_D / (rate * len(examples))
            weights_D -= (training.learning_rate * velocity_D).astype(np.float32)
    return unflatten(weights_D - flatten(base), schema)


def gradient_sum(model: nn.Module, parameters: Mapping[str, torch.Tensor], features_BF: torch.Tensor,
                 labels_B: torch.Tensor, clip_norm: float | None) -> Float64:
    """The sum over rows of the loss gradient, each clipped to `clip_norm` (None: not clipped), (D,).

    A row whose gradient is not finite counts as zero when clipping: infinity times zero would tell that it is there.
    """
    import torch
    from torch.func import functional_call, vmap
    from torch.nn.functional import binary_cross_entropy_with_logits as logistic_loss

    def loss(weights: dict[str, torch.Tensor], x_BF: torch.Tensor, y_B: torch.Tensor) -> torch.Tensor:
        logits_B = functional_call(model, weights, (x_BF,)).reshape(y_B.shape)
        return logistic_loss(logits_B, y_B, reduction="sum")

    def loss_of_row(weights: dict[str, torch.Tensor], x_F: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return loss(weights, x_F[None], y[None])

    names = sorted(parameters)
    total_D = np.zeros(sum(parameters[name].numel() for name in names))
    for start in range(0, len(labels_B), CHUNK):
        x_BF, y_B = features_BF[start:start + CHUNK], labels_B[start:start + CHUNK]
        if clip_norm is None:
            weights = {name: parameters[name].detach().requires_grad_() for name in names}
            gradients = torch.autograd.grad(loss(weights, x_BF, y_B), list(weights.values()))
            parts = [gradient.reshape(-1) for gradient in gradients]
        else:
            # Each row gets weights of its own (views of the same numbers), so one backward pass gives every row's
            # gradient. (torch.func.grad would do, and import torch's compiler: 80 MB in every site's process.)
            weights = {name: parameters[name].detach().expand(len(y_B), *parameters[name].shape).requires_grad_()
                       for name in names}
            losses_B = vmap(loss_of_row, randomness="different")(weights, x_BF, y_B)
            rows = [part.reshape(len(y_B), -1) for part in torch.autograd.grad(losses_B.sum(), list(weights.values()))]
            norm_B = torch.stack([part.double().square().sum(1) for part in rows]).sum(0).sqrt()
            finite_B = norm_B.isfinite()
            share_B = torch.where(finite_B, (clip_norm * (1 - CLIP_MARGIN) / norm_B).clamp(max=1), 0).float()
            parts = [share_B @ torch.where(finite_B[:, None], part, 0) for part in rows]
        total_D += torch.cat(parts).double().numpy()
    return total_D


def check_fits(recipe: Recipe, model: nn.Module, tensors: Tensors) -> None:
    """Raise ContractError unless `tensors` are exactly this model's parameters."""
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    if {name: array.shape for name, array in tensors.items()} != expected:
        wrong = sorted(name for name in {*expected, *tensors}
                       if name not in tensors or tensors[name].shape != expected.get(name))
        raise ContractError(f"recipe '{recipe.name}': its model and the given tensors differ in {', '.join(wrong[:5])}")
