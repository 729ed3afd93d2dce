"""One site as a curious coordinator sees it: the model it sends, and the update that comes back, for several rounds.

The site trains with the product's own code: noise calibrated by the accountant, DP-SGD by `fedround.learning.train`. The
coordinator's model is the one site's (a federation of one), which shows more of it than a mean of twelve would.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedround.codec import Tensors, flatten
from fedround.learning.examples import Examples
from fedround.learning.guard import UNGUARDED
from fedround.learning.lesson import Lesson
from fedround.learning.recipe import Recipe, initial_tensors
from fedround.learning.spec import LocalTraining
from fedround.learning.train import train
from fedround.privacy.calibration import calibrate
from fedround.privacy.noise import stream
from fedround.privacy.spec import DpSgd, NoMechanism, RecordPrivacy

if TYPE_CHECKING:
    from torch import nn

DELTA_DP = 1e-5


@dataclass(frozen=True)
class Audited:
    """How the site trains, and what it promises."""

    recipe: Recipe
    training: LocalTraining
    rounds: int
    epsilon: float | None
    """For the whole campaign at DELTA_DP; None: neither clipping nor noise."""
    clip_norm: float = 1.0

    def mechanism(self, rows: int) -> DpSgd | NoMechanism:
        """What a site with so many rows applies in every round."""
        if self.epsilon is None:
            return NoMechanism()
        privacy = RecordPrivacy(epsilon=self.epsilon, delta_dp=DELTA_DP, clip_norm=self.clip_norm, rounds=self.rounds)
        rate = self.training.sampling_rate(rows)
        return DpSgd(noise_multiplier=calibrate(privacy, rate, self.training.local_steps, ()),
                     clip_norm=self.clip_norm, sampling_rate=rate, steps=self.training.local_steps)


@dataclass(frozen=True)
class Seen:
    """What the coordinator has after the campaign: every round's model, the last one's too, and every round's update."""

    models: tuple[Tensors, ...]
    updates: tuple[Tensors, ...]


def watch(site: Audited, rows: Examples, mechanism: DpSgd | NoMechanism, seed: int) -> Seen:
    """All rounds; the same seed begins with the same model, and gives the same bytes."""
    models, updates = [initial_tensors(site.recipe, seed)], []
    for number in range(site.rounds):
        noise = stream(bytes(32), f"audit {seed} {number}".encode())
        updates.append(train(site.recipe, Lesson(models[-1], rows), site.training, mechanism, noise, UNGUARDED).delta)
        models.append({name: models[-1][name] + updates[-1][name] for name in models[-1]})
    return Seen(tuple(models), tuple(updates))


def recipe_of(name: str, build_model: Callable[[], nn.Module]) -> Recipe:
    """A recipe that is no file; its rows come encoded."""
    def encode(rows: object) -> Examples:
        raise NotImplementedError("these rows are encoded already")

    return Recipe(name, "0" * 64, build_model, encode)


def total(tensors: tuple[Tensors, ...]) -> npt.NDArray[np.float64]:
    """The sum of several updates, (D,)."""
    result: npt.NDArray[np.float64] = np.sum([flatten(one).astype(np.float64) for one in tensors], axis=0)
    return result
