"""Pictures out of an update: gradient inversion (Zhu, Liu and Han 2019, arXiv:1906.08935; cosine loss: Geiping et al. 2020,
arXiv:2003.14053).

The coordinator searches for pictures whose gradient, at the model that it sent, is the update that came back.
B pictures of 8 x 8 pixels, D coordinates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from benchmarks.audited_site import Audited, recipe_of, watch
from fedround.codec import Tensors
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe
from fedround.learning.spec import LocalTraining

if TYPE_CHECKING:
    import torch

Pictures = npt.NDArray[np.float64]

PIXELS, HIDDEN = 64, 128
STEP = LocalTraining(local_steps=1, batch_size=64, learning_rate=1.0)


@dataclass(frozen=True)
class Reconstruction:
    """What the attack made of one update, in the order of the originals, (B, 64) in [0, 1]."""

    pictures: Pictures
    mse: float

    @property
    def psnr_db(self) -> float:
        """Of pictures whose brightest pixel is 1."""
        return float(-10 * np.log10(max(self.mse, 1e-20)))


def picture_recipe() -> Recipe:
    """One hidden layer of 128 on 64 pixels; smooth, as the attack likes it."""
    from torch import nn

    return recipe_of("pictures", lambda: nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1)))


def some_pictures(batch: int, seed: int) -> Examples:
    """Digits of scikit-learn; label: five or more."""
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    chosen = np.random.default_rng(seed).choice(len(images), batch, replace=False)
    return Examples((images[chosen] / 16).astype(np.float32), (digits[chosen] >= 5).astype(np.int64))


def invert_update(rows: Examples, epsilon: float | None, *, restarts: int, seed: int) -> Reconstruction:
    """One round, one step on all rows (nothing suits the attack better); then the attack, with both losses.

    Of all reconstructions the one nearest to the originals is kept, which no attacker could know: in favour of the attack.
    """
    site = Audited(picture_recipe(), STEP, rounds=1, epsilon=epsilon)
    seen = watch(site, rows, site.mechanism(len(rows)), seed)
    gradient = {name: -update / STEP.learning_rate for name, update in seen.updates[0].items()}
    tries = [_compare(_search(site.recipe, seen.models[0], gradient, len(rows), loss, seed=seed + number), rows)
             for loss in (_squared, _cosine) for number in range(restarts)]
    return min(tries, key=lambda one: one.mse)


def knowing_nothing(rows: Examples) -> Reconstruction:
    """The mean of all digits as the answer to every question."""
    from sklearn.datasets import load_digits

    return _compare(np.repeat(load_digits().data.mean(axis=0)[None] / 16, len(rows), axis=0), rows)


def _search(recipe: Recipe, model: Tensors, gradient: Tensors, batch: int,
            distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], seed: int) -> Pictures:
    """Pictures and soft labels whose gradient is nearest, by L-BFGS from a random start."""
    import torch
    from torch.func import functional_call
    from torch.nn.functional import binary_cross_entropy_with_logits as logistic_loss

    network = recipe.build_model().double()
    weights = {name: torch.from_numpy(array).double().requires_grad_() for name, array in model.items()}
    target_D = torch.cat([torch.from_numpy(gradient[name]).double().reshape(-1) for name in weights])
    start = torch.Generator().manual_seed(seed)
    guess = torch.randn(batch, PIXELS, generator=start, dtype=torch.float64).mul_(0.5).requires_grad_()
    label = torch.randn(batch, generator=start, dtype=torch.float64).requires_grad_()
    search = torch.optim.LBFGS([guess, label], lr=1, max_iter=600, history_size=50, line_search_fn="strong_wolfe",
                               tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure() -> torch.Tensor:
        search.zero_grad()
        logits = functional_call(network, weights, (torch.sigmoid(guess),)).reshape(batch)
        loss = logistic_loss(logits, torch.sigmoid(label))
        parts = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        far = distance(torch.cat([part.reshape(-1) for part in parts]), target_D)
        guess.grad, label.grad = torch.autograd.grad(far, [guess, label])
        return far

    search.step(closure)    # type: ignore[no-untyped-call]
    return np.asarray(torch.sigmoid(guess).detach().numpy())


def _squared(found_D: torch.Tensor, target_D: torch.Tensor) -> torch.Tensor:
    return (found_D - target_D).square().sum() / target_D.square().sum()


def _cosine(found_D: torch.Tensor, target_D: torch.Tensor) -> torch.Tensor:
    alike: torch.Tensor = found_D @ target_D / (found_D.norm() * target_D.norm() + 1e-12)
    return 1 - alike


def _compare(pictures: Pictures, rows: Examples) -> Reconstruction:
    """Give every original its picture, as well as can be; a batch has no order."""
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

    originals = rows.inputs["x"].astype(np.float64)
    error_BB = ((originals[:, None] - pictures[None]) ** 2).mean(axis=2)
    _, order = linear_sum_assignment(error_BB)
    return Reconstruction(pictures[order], float(error_BB[np.arange(len(order)), order].mean()))
