"""A site's half of a round of a foreign client: what it made of the model, cut and noised outside of it. D coordinates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fedround.codec import Tensors, flatten, schema_of, unflatten
from fedround.errors import ContractError
from fedround.learning.noised import noised_change
from fedround.privacy.noise import NoiseSource
from fedround.privacy.spec import GaussianUpdate, NoMechanism, TrainingMechanism

Elsewhere = Callable[[Tensors], Tensors]
"""Trains in another process: from the base model's tensors to as many of the same names and shapes."""


def change(base: Tensors, elsewhere: Elsewhere, mechanism: TrainingMechanism, noise: NoiseSource) -> Tensors:
    """The model's change, as it may leave.

    Promises: what is returned satisfies what an accountant says of `mechanism`, provided `noise` is secret and fresh,
    whatever `elsewhere` does. Raises ContractError if that gives back no finite numbers of the base model's form, or the
    mechanism looks at single rows.
    """
    if not isinstance(mechanism, GaussianUpdate | NoMechanism):
        raise ContractError(f"a foreign client's rows cannot be noised with '{mechanism.kind}': nobody sees their gradients")
    trained = elsewhere(base)
    if schema_of(trained) != schema_of(base):
        raise ContractError("the client gave back other tensors than the model's")
    base_D: npt.NDArray[np.float32] = flatten(base)
    with np.errstate(over="ignore", invalid="ignore"):
        delta_D = flatten(trained) - base_D
    if not np.isfinite(delta_D).all():
        raise ContractError("the client gave back numbers that are not finite")
    return unflatten(noised_change(delta_D, mechanism, noise), schema_of(base))
