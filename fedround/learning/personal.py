"""A site's personal model: trained on its rows without noise, with or without a pull to the shared model, and never
released.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from fedround.codec import Tensors
from fedround.learning.algorithms import FedProx, Plain
from fedround.learning.device import DeviceName
from fedround.learning.examples import Examples
from fedround.learning.parts import NO_REST, Rest
from fedround.learning.recipe import Recipe
from fedround.learning.spec import LocalTraining
from fedround.learning.train import train
from fedround.privacy.noise import NoiseSource
from fedround.privacy.spec import NoMechanism

Float32 = npt.NDArray[np.float32]


def personalise(recipe: Recipe, model: Tensors, examples: Examples, training: LocalTraining, noise: NoiseSource,
                cancelled: Callable[[], bool], *, shared: Tensors | None = None, pull: float = 0.0, rest: Rest = NO_REST,
                time_is_up: Callable[[], bool] = lambda: False,
                device: DeviceName = "cpu") -> tuple[dict[str, Float32], Mapping[str, Float32]]:
    """`model` after `training.local_steps` steps on these rows; and the private part of `rest`, which takes part.

    Every step is also pulled by `pull` times the distance to `shared` (Ditto: Li et al. 2021, arXiv:2012.04221); without a
    pull this is fine-tuning. Ends early, with the steps so far, when `time_is_up()`. noise: draws the batches.
    Promises no privacy: what is returned is the site's own. Raises as `train` does.
    """
    how = training.model_copy(update={"algorithm": FedProx(mu=pull) if pull > 0 else Plain(), "partial": "keep"})
    trained = train(recipe, model, examples, how, NoMechanism(), noise, cancelled, time_is_up=time_is_up, rest=rest,
                              towards=shared, device=device)
    return {name: model[name] + change for name, change in trained.delta.items()}, trained.private
