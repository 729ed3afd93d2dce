"""Server optimizers: how the model takes the step that the cohort agreed on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedround.codec import Tensors, coordinates, flatten, schema_of, unflatten
from fedround.errors import ContractError
from fedround.types import FedAvg

Coordinates = npt.NDArray[np.float32]


def step(model: Tensors, velocity_D: Coordinates | None, aggregate_D: Coordinates,
         optimizer: FedAvg) -> tuple[dict[str, Coordinates], Coordinates | None]:
    """The next model and the optimizer's state (FedAvgM, Hsu et al. 2019, arXiv:1909.06335).

    velocity = momentum * velocity + aggregate; model += learning_rate * velocity, in float64, rounded to float32 once
    each. Without momentum there is no state: None comes back, and a state that is given has no effect.
    velocity_D: the state that the step before returned; None stands for zeros.
    Raises ContractError if a length does not fit the model, or the next model is not finite.
    """
    schema = schema_of(model)
    for name, vector_D in (("aggregate", aggregate_D), ("velocity", velocity_D)):
        if vector_D is not None and vector_D.shape != (coordinates(schema),):
            raise ContractError(f"the {name} has shape {vector_D.shape}, expected ({coordinates(schema)},)")
    moved_D = aggregate_D.astype(np.float64)
    if optimizer.momentum > 0 and velocity_D is not None:
        moved_D += optimizer.momentum * velocity_D.astype(np.float64)
    with np.errstate(over="ignore"):        # judged below
        next_velocity_D = moved_D.astype(np.float32)
        next_D = (flatten(model) + optimizer.learning_rate * next_velocity_D.astype(np.float64)).astype(np.float32)
    if not np.isfinite(next_D).all():
        raise ContractError("the server step leaves the range of float32: lower optimizer.learning_rate, or choose a "
                            "rule that bounds what one site can do")
    return unflatten(next_D, schema), next_velocity_D if optimizer.momentum > 0 else None
