"""A site's personal model: trained on its rows without noise, with or without a pull to the shared model, and never
released.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fedround.learning.algorithms import FedProx, Plain
from fedround.learning.guard import Guard
from fedround.learning.lesson import Lesson
from fedround.learning.recipe import Recipe
from fedround.learning.spec import LocalTraining
from fedround.learning.train import train
from fedround.privacy.noise import NoiseSource
from fedround.privacy.spec import NoMechanism

Float32 = npt.NDArray[np.float32]


def personalise(recipe: Recipe, lesson: Lesson, training: LocalTraining, noise: NoiseSource, guard: Guard, *,
                pull: float = 0.0) -> tuple[dict[str, Float32], Mapping[str, Float32]]:
    """`lesson.base` after `training.local_steps` steps; and the private part of `lesson.rest`, which takes part.

    Every step is also pulled by `pull` times the distance to `lesson.towards`, the shared model (Ditto: Li et al. 2021,
    arXiv:2012.04221); without a pull this is fine-tuning. Ends early, with the steps so far, when the guard says that time is
    up. noise: draws the batches.
    Promises no privacy: what is returned is the site's own. Raises as `train` does.
    """
    how = training.model_copy(update={"algorithm": FedProx(mu=pull) if pull > 0 else Plain(), "partial": "keep"})
    trained = train(recipe, lesson, how, NoMechanism(), noise, guard)
    return {name: lesson.base[name] + change for name, change in trained.delta.items()}, trained.private
