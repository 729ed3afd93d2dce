"""Server optimizers: how the model takes the step that the cohort agreed on.

D coordinates. A state is named vectors, (D,) each: "velocity" for FedAvg with momentum, "m" and "v" for the adaptive ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fedround.codec import Schema, Tensors, coordinates, flatten, is_finite, schema_of, unflatten
from fedround.errors import ContractError
from fedround.learning.spec import FedAdagrad, FedAdam, FedAvg, FedYogi, ServerOptimizer
from fedround.values import TensorSpec

Coordinates = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_BLOCK = 1 << 18


def step(model: Tensors, state: Mapping[str, Coordinates] | None, aggregate_D: Coordinates,
         optimizer: ServerOptimizer) -> tuple[dict[str, Coordinates], dict[str, Coordinates] | None]:
    """The next model, and the optimizer's next state; None where it has none.

    What each computes stands with its value (`fedround.learning.spec`). In float64; state and model are rounded to float32
    once each, and the model is computed from the rounded state, so whoever has the state can compute the model.
    state: what the step before returned; None is how an optimizer begins.
    Raises ContractError if the state is another optimizer's, a length does not fit the model, or the next model or state is
    not finite.
    Memory: that of what is returned, and a block.
    """
    schema = schema_of(model)
    size = coordinates(schema)
    wanted = {spec.name for spec in state_schema(optimizer, size)}
    if state is not None and state.keys() != wanted:
        raise ContractError(f"{optimizer.name} continues {sorted(wanted) or 'nothing'}, got {sorted(state)}")
    for name, vector_D in {**(state or {}), "aggregate": aggregate_D}.items():
        if vector_D.shape != (size,):
            raise ContractError(f"the {name} has shape {vector_D.shape}, expected ({size},)")
    next_D = flatten(model)                     # a copy, which becomes the next model block by block
    following = {name: np.empty(size, np.float32) for name in wanted}
    for start in range(0, size, _BLOCK):        # float64 of a few coordinates at a time: models may be large
        block = slice(start, start + _BLOCK)
        past = {name: vector_D[block].astype(np.float64) for name, vector_D in (state or {}).items()}
        with np.errstate(over="ignore", invalid="ignore"):        # judged below
            now = {name: vector_B.astype(np.float32) for name, vector_B in
                   _state(past, aggregate_D[block].astype(np.float64), optimizer).items()}
            change_B = _change({name: vector_B.astype(np.float64) for name, vector_B in now.items()}, optimizer)
            next_D[block] = next_D[block] + optimizer.learning_rate * change_B
        for name, vector_D in following.items():
            vector_D[block] = now[name]
    if not all(map(is_finite, (next_D, *following.values()))):
        raise ContractError("the server step leaves the range of float32: lower optimizer.learning_rate, or choose a "
                            "rule that bounds what one site can do")
    return unflatten(next_D, schema), following if wanted else None


def state_schema(optimizer: ServerOptimizer, size: int) -> Schema:
    """The tensors of the state after a step on `size` coordinates; none for plain FedAvg."""
    names = (("velocity",) if optimizer.momentum > 0 else ()) if isinstance(optimizer, FedAvg) else ("m", "v")
    return tuple(TensorSpec(name=name, shape=(size,)) for name in names)


def continues(optimizer: ServerOptimizer, before: ServerOptimizer | None) -> bool:
    """Whether `optimizer` goes on with the state that `before` left: it is of the same kind, its numbers may have changed."""
    return before is not None and before.name == optimizer.name and state_schema(before, 1) == state_schema(optimizer, 1)


def _state(past: Mapping[str, Float64], aggregate_D: Float64, optimizer: ServerOptimizer) -> dict[str, Float64]:
    """The state after the step. Even without momentum, FedAvg's velocity moves the model."""
    if isinstance(optimizer, FedAvg):
        return {"velocity": aggregate_D + optimizer.momentum * past.get("velocity", 0.0)}
    m_D = optimizer.beta1 * past.get("m", 0.0) + (1 - optimizer.beta1) * aggregate_D
    v_D, square_D = past.get("v", np.full_like(aggregate_D, optimizer.tau ** 2)), aggregate_D ** 2
    match optimizer:
        case FedAdagrad():
            return {"m": m_D, "v": v_D + square_D}
        case FedAdam(beta2=beta2):
            return {"m": m_D, "v": beta2 * v_D + (1 - beta2) * square_D}
        case FedYogi(beta2=beta2):
            return {"m": m_D, "v": v_D - (1 - beta2) * square_D * np.sign(v_D - square_D)}


def _change(state: Mapping[str, Float64], optimizer: ServerOptimizer) -> Float64:
    if isinstance(optimizer, FedAvg):
        return state["velocity"]
    change_D: Float64 = state["m"] / (np.sqrt(state["v"]) + optimizer.tau)
    return change_D
