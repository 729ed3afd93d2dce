"""How is a pole kept upright on a cart? Six workshops, each with carts and poles of its own; see README.md.

A row is an episode: what the cart and the pole are like, and where they begin. The model plays it. In training it pushes to
either side by chance, and its number has the policy gradient (REINFORCE: Williams 1992); where it is judged, it pushes to the
likelier side.

B rows, T steps.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import logsigmoid

from fedround.learning.tasks import Maximise

if TYPE_CHECKING:
    import pandas as pd

STEPS = 200
NAME = "cartpole-policy"
TASK = Maximise(bounds=(0, STEPS))
COLUMNS_OF_A_ROW = ("half_length", "pole_mass", "force", "position", "speed", "angle", "turning")

GRAVITY, CART_MASS, SECONDS = 9.8, 1.0, 0.02        # of a step; all as in gymnasium's CartPole-v1
FARTHEST, STEEPEST = 2.4, 12 * math.pi / 180        # beyond either the episode is over
FASTEST = 20.0                  # turns of what has long fallen, which would grow beyond any number
DISCOUNT, USUAL = 0.95, 14.0                        # of later steps; what a step is worth anyhow, of 20 at most
SCALE = (1.0, 1.0, 5.0, 2.0)                        # of what the policy sees


def features(rows: pd.DataFrame) -> npt.NDArray[np.float32]:
    """Metres, kilograms, newtons; then where the episode begins."""
    return rows[list(COLUMNS_OF_A_ROW)].to_numpy(np.float32)


class Cart:
    """Carts with a pole each, of these half lengths, pole masses and forces, (B,) each."""

    def __init__(self, half_length: torch.Tensor, pole_mass: torch.Tensor, force: torch.Tensor):
        mass = CART_MASS + pole_mass
        self._force, self._swing, self._share = force / mass, pole_mass * half_length / mass, pole_mass / mass
        self._half_length = half_length

    def moved(self, state: tuple[torch.Tensor, ...], side: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Where they are one step later: position, speed, angle, turning, (B,) each. side: 1.0, or -1.0 for to the left."""
        position, speed, angle, turning = state
        cos, sin = angle.cos(), angle.sin()
        pushed = self._force * side + self._swing * turning.square() * sin
        turned = (GRAVITY * sin - cos * pushed) / (self._half_length * (4 / 3 - self._share * cos.square()))
        sped = pushed - self._swing * turned * cos
        return position + SECONDS * speed, speed + SECONDS * sped, angle + SECONDS * turning, turning + SECONDS * turned


class Agent(nn.Module):
    """The chance of a push to the right is logistic in where cart and pole are: five numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """How many steps the pole stays up, (B,), at most STEPS; in training with the gradient of how it was pushed."""
        seen_BTC, side_BT, up_BT = self.played(x)
        steps_B = up_BT.sum(1)
        if not self.training:
            return steps_B
        chosen_BT = logsigmoid(side_BT * self.policy(seen_BTC).squeeze(-1))
        surrogate_B = (chosen_BT * worth(up_BT)).sum(1)
        return steps_B + (surrogate_B - surrogate_B.detach())

    @torch.no_grad()
    def played(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One episode of each row: what was seen, (B, T, 4), to which side was pushed, and which steps ended upright."""
        cart, state = Cart(*x[:, :3].clamp(min=0.01).unbind(1)), x[:, 3:].unbind(1)
        weight, bias, scale = self.policy.weight, self.policy.bias, torch.tensor(SCALE, dtype=x.dtype)
        bar_BT = torch.rand(len(x), STEPS).logit() if self.training else torch.zeros(len(x), STEPS)
        seen, sides, after = [], [], []
        for bar_B in bar_BT.to(x).unbind(1):
            seen.append(torch.stack(state, 1) * scale)
            sides.append(torch.where((seen[-1] * weight).sum(1) + bias > bar_B, 1.0, -1.0))
            position, speed, angle, turning = cart.moved(state, sides[-1])
            state = position, speed, angle, turning.clamp(-FASTEST, FASTEST)
            after.append(torch.maximum(position.abs() / FARTHEST, angle.abs() / STEEPEST))
        up_BT = (torch.stack(after, 1) <= 1).to(x).cumprod(1)
        return torch.stack(seen, 1), torch.stack(sides, 1), up_BT


def worth(up_BT: torch.Tensor) -> torch.Tensor:
    """How much longer than usual the pole stays up from each step on, later steps counting less, (B, T); 0 where it lies.

    What ends because time is up would have gone on.
    """
    later_B, found = torch.where(up_BT[:, -1] > 0, 1 / (1 - DISCOUNT), 0.0), []
    for up_B in up_BT.flip(1).unbind(1):
        later_B = up_B * (1 + DISCOUNT * later_B)
        found.append(up_B * (later_B - USUAL))
    return torch.stack(found[::-1], 1)


def build_model() -> nn.Module:
    """A policy that plays."""
    return Agent()
