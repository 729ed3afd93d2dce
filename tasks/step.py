"""The server's step: from the aggregate to the next model, and to what the round after it continues.

A function of the plan, its parent and the aggregate, and of what these name in the store: whoever has them computes the same
bytes, the coordinator that commits and the auditor who checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedround import codec, optimizers
from fedround.aggregation.engine import Aggregate
from fedround.aggregation.spec import uses_weights
from fedround.aggregation.verdict import Verdict
from fedround.codec import Schema, Tensors
from fedround.learning import control
from fedround.learning.spec import Scaffold
from fedround.types import Commit, RoundPlan
from infra.stores import ObjectStore
from tasks.history import read_tensors

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Stepped:
    """Canonical tensor files, to be named by the commit."""

    model: bytes
    state: bytes | None
    """The server optimizer's; None where it has none."""
    control: bytes | None
    """The server's control variate, with SCAFFOLD only."""


def take_step(store: ObjectStore, plan: RoundPlan, parent: Commit, aggregate: Aggregate,
              weights: Mapping[str, float]) -> Stepped:
    """What the round makes of the aggregate.

    parent: the commit that the plan continues. weights: of every member of the federation (`tasks.weights`).
    Raises ContractError if the step leaves the range of float32, TrustError if the store holds other bytes than are named.
    """
    base = _read(store, plan.base_model, plan.tensors, f"base model of round {plan.round}")
    model, state = optimizers.step(base, _state(store, plan, parent), aggregate.delta_D, plan.optimizer)
    return Stepped(codec.encode(model), None if state is None else codec.encode(state),
                   _control(store, plan, aggregate, weights))


def _state(store: ObjectStore, plan: RoundPlan, parent: Commit) -> Tensors | None:
    """The server optimizer's state after the parent round; None if there is none, or another optimizer left it."""
    if parent.optimizer_state is None or not optimizers.continues(plan.optimizer, parent.optimizer):
        return None
    schema = optimizers.state_schema(plan.optimizer, codec.coordinates(plan.tensors))
    return _read(store, parent.optimizer_state, schema, "optimizer state")


def _control(store: ObjectStore, plan: RoundPlan, aggregate: Aggregate, weights: Mapping[str, float]) -> bytes | None:
    if not isinstance(plan.training.algorithm, Scaffold):
        return None
    past = None if plan.control is None else codec.flatten(_read(store, plan.control, plan.tensors, "control variate"))
    used = [site for site, standing in aggregate.standings.items() if standing.verdict is Verdict.USED]
    share = control.share_of(used, weights, weighted=uses_weights(plan.aggregation))
    following_D = control.next_of_server(past, aggregate.delta_D, plan.training, share)
    return codec.encode(codec.unflatten(following_D, plan.tensors))


def _read(store: ObjectStore, sha256: str, schema: Schema, source: str) -> dict[str, Float32]:
    return codec.decode(read_tensors(store, sha256, schema, source), schema, source)
