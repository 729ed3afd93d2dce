"""What did it say of this person? Attribute inference on a released model (Yeom et al. 2018, arXiv:1709.01604, section 4).

Whoever knows all of a row but one feature, and its label, asks the model about every value that the feature can have, and
guesses the one with the smallest loss. A model that learnt only how things are guesses for members as for others; what it
guesses better for members, it knows of them. The same with a block of features that are searched for by their gradient is
model inversion: the picture's missing half.
R runs, each with its own half of E rows; F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.audited_site import Audited, watch
from fedround.codec import Tensors
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Known:
    """How much better an attack does for members than for others."""

    members: float
    """Of members: the share that is guessed right, or the mean error."""
    others: float
    advantage: float
    error: float
    """Standard error of the advantage, over runs."""

    @property
    def is_found(self) -> bool:
        """Whether the advantage is more than chance makes of it, in 95 of 100 audits."""
        return self.advantage > 1.645 * self.error

    @property
    def power(self) -> float:
        """The advantage that such an audit finds in 95 of 100 cases."""
        return 2 * 1.645 * self.error


def attribute(site: Audited, rows: Examples, column: int, runs: int, seed: int) -> Known:
    """Guess the feature at this place, from the values that it has in `rows`. Right guesses are told."""
    values = np.unique(rows.inputs["x"][:, column])

    def right(model: Tensors) -> Float64:
        loss_VE = np.stack([_losses(site.recipe, model, _with(rows, column, value)) for value in values])
        return (values[loss_VE.argmin(axis=0)] == rows.inputs["x"][:, column]).astype(np.float64)

    return _compared(site, rows, runs, seed, right, better=1)


def inversion(site: Audited, rows: Examples, hidden_F: Bool, runs: int, seed: int) -> Known:
    """Search for the hidden features, in [0, 1], by gradient descent on the loss. Mean squared errors are told."""
    return _compared(site, rows, runs, seed, lambda model: _searched(site.recipe, model, rows, hidden_F), better=-1)


def _compared(site: Audited, rows: Examples, runs: int, seed: int, told: Callable[[Tensors], Float64], better: int) -> Known:
    member_RE = np.random.default_rng(seed).random((runs, len(rows))) < 0.5
    found_RE = np.empty(member_RE.shape)
    for run, member_E in enumerate(member_RE):
        part = rows.at(member_E)
        found_RE[run] = told(watch(site, part, site.mechanism(len(part)), seed=seed + run).models[-1])
    inside_R = np.array([found_E[member_E].mean() for found_E, member_E in zip(found_RE, member_RE, strict=True)])
    outside_R = np.array([found_E[~member_E].mean() for found_E, member_E in zip(found_RE, member_RE, strict=True)])
    gain_R = better * (inside_R - outside_R)
    return Known(float(inside_R.mean()), float(outside_R.mean()), float(gain_R.mean()),
                 float(gain_R.std(ddof=1) / math.sqrt(runs)))


def _with(rows: Examples, column: int, value: np.float32) -> Examples:
    x_EF = rows.inputs["x"].copy()
    x_EF[:, column] = value
    return Examples(x_EF, rows.targets["y"])


def _losses(recipe: Recipe, model: Tensors, rows: Examples) -> Float64:
    """The auditor's own, (E,)."""
    import torch
    from torch.func import functional_call
    from torch.nn.functional import binary_cross_entropy_with_logits as logistic_loss

    with torch.no_grad():
        logit_E = functional_call(recipe.build_model(), {name: torch.from_numpy(array) for name, array in model.items()},
                                  (torch.from_numpy(rows.inputs["x"]),)).reshape(-1)
        return logistic_loss(logit_E, torch.from_numpy(rows.targets["y"]).float(), reduction="none").double().numpy()


def _searched(recipe: Recipe, model: Tensors, rows: Examples, hidden_F: Bool, steps: int = 100) -> Float64:
    """The mean squared error of what is found, of each row, (E,)."""
    import torch
    from torch.func import functional_call
    from torch.nn.functional import binary_cross_entropy_with_logits as logistic_loss

    network, weights = recipe.build_model(), {name: torch.from_numpy(array) for name, array in model.items()}
    x_EF, y_E = torch.from_numpy(rows.inputs["x"]), torch.from_numpy(rows.targets["y"]).float()
    hidden = torch.from_numpy(hidden_F)
    begin_F = x_EF.mean(0)                      # as good a start as anybody's who has seen such rows
    guess_EF = torch.where(hidden, begin_F, x_EF).requires_grad_()
    descent = torch.optim.Adam([guess_EF], lr=0.02)
    for _ in range(steps):
        descent.zero_grad()
        logistic_loss(functional_call(network, weights, (guess_EF,)).reshape(-1), y_E, reduction="sum").backward()
        descent.step()
        with torch.no_grad():
            guess_EF.copy_(torch.where(hidden, guess_EF.clamp(0, 1), x_EF))
    return ((guess_EF.detach() - x_EF)[:, hidden] ** 2).mean(1).double().numpy()
