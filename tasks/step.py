"""The server's step: from the aggregate to the next model, and to the state that the round after it continues.

The computation is in `fedround.rounds.server`. Here are its inputs, and the names of its results. The step is a function of
the plan, its parent, the aggregate, and what these name in the store. Whoever has them computes the same bytes: the
coordinator that commits, and the auditor who checks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedround import codec, optimizers
from fedround.codec import Tensors
from fedround.records import Blob, Train
from fedround.rounds import server
from fedround.rounds.server import Server
from fedround.signing import digest
from infra.documents import read_tensors
from infra.stores import ObjectStore
from tasks.aggregate import Aggregated
from tasks.plan import Planned


@dataclass(frozen=True)
class StatePart:
    """A part of the round's state, and its bytes."""

    blob: Blob
    body: bytes


@dataclass(frozen=True)
class Stepped:
    """Canonical tensor files, which the commit will name."""

    model: bytes
    rest: Blob | None
    """What does not travel; it is in the store from the beginning."""
    parts: tuple[StatePart, ...]

    @property
    def state(self) -> tuple[Blob, ...]:
        """The commit's entries for everything but the model."""
        return (*(() if self.rest is None else (self.rest,)), *(part.blob for part in self.parts))


def take_step(store: ObjectStore, planned: Planned, done: Aggregated) -> Stepped:
    """What the round makes of the aggregate.

    Raises ContractError if the step leaves the range of float32, TrustError if the store holds other bytes than are named.
    """
    plan, result = planned.plan, done.result
    after = server.step(plan.agreed, plan.task, begins_with(store, planned), result.delta_D, done.combined.used, done.weights)
    parts = list[StatePart]()
    if after.optimizer is not None:
        parts.append(_part("optimizer", after.optimizer))
    parts += [_part(name, codec.unflatten(vector_D, plan.tensors)) for name, vector_D in sorted(after.served.items())]
    if server.keeps_centre(plan.agreed.aggregation):
        parts.append(_part("centre", {"centre": result.delta_D}, "coordinator"))
    if plan.agreed.combine is None and not plan.by_region and plan.agreed.clusters == 1:
        parts.append(_part("distances", {"distances": result.distances_NN.astype(np.float32)}, "coordinator"))
    rest = next((blob for blob in planned.parent.commit.state if blob.name == "rest"), None)
    return Stepped(codec.encode(after.model), rest, tuple(parts))


def begins_with(store: ObjectStore, planned: Planned) -> Server:
    """The server as the round before left it."""
    plan, before = planned.plan, planned.parent.commit
    model = read_tensors(store, plan.base_model, plan.tensors, f"base model of round {plan.round}")
    named = plan.asks.state if isinstance(plan.asks, Train) else ()
    served = {blob.name: codec.flatten(read_tensors(store, blob.digest, plan.tensors, f"the server's '{blob.name}'"))
              for blob in named}
    how, state = plan.agreed.optimizer, before.blob("optimizer")
    if state is None or before.agreed is None or not optimizers.continues(how, before.agreed.optimizer):
        return Server(model, None, served)
    schema = optimizers.state_schema(how, codec.coordinates(plan.tensors))
    return Server(model, read_tensors(store, state, schema, "optimizer state"), served)


def _part(name: str, tensors: Tensors, readers: Literal["everybody", "coordinator"] = "everybody") -> StatePart:
    body = codec.encode(tensors)
    return StatePart(Blob(name=name, digest=digest(body), readers=readers), body)
