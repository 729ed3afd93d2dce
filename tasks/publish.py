"""From one delta to a committed round: blob, manifest, and last the commit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fedround import __version__, codec, layout, optimizers
from fedround.aggregation.engine import Aggregate
from fedround.signing import digest, seal
from fedround.types import Checkpoint, Commit, CommittedUpdate, Payload, TensorSpec
from infra.stores import publish as put
from tasks.collect import Collected, clear_spool
from tasks.coordinator import Coordinator
from tasks.history import Committed, read_commit, read_tensors
from tasks.plan import Planned


def publish(coordinator: Coordinator, planned: Planned, collected: Collected, aggregate: Aggregate) -> Committed:
    """Take the server's step and commit the round. Of two coordinators that try, one commits; both then read the same.

    Deterministic: the same plan and the same answers give the same bytes.
    """
    plan = planned.plan
    model, state = _step(coordinator, planned, aggregate)
    checkpoint = seal("checkpoint", Checkpoint(
        federation=plan.federation, run=plan.run, round=plan.round,
        model=Payload(sha256=digest(model), size_bytes=len(model)), tensors=plan.tensors, recipe=plan.recipe,
        recipe_digest=plan.recipe_digest, privacy=plan.privacy, tool_version=__version__), coordinator.identity)
    commit = Commit(
        federation=plan.federation, federation_digest=plan.federation_digest, run=plan.run, round=plan.round,
        parent=plan.parent, plan=planned.digest, base_model=plan.base_model, model=digest(model),
        optimizer_state=None if state is None else digest(state), checkpoint=digest(checkpoint), rule=plan.rule,
        optimizer=plan.optimizer, updates=_updates(coordinator, collected, aggregate),
        refusals=tuple(committed for _, (_, committed) in sorted(collected.refused.items())),
        rejected=tuple(rejection for _, rejection in sorted(collected.rejected.items())),
        missing=collected.missing, tool_version=__version__)
    for blob in (model, state):
        if blob is not None:
            put(coordinator.store, layout.model(digest(blob)), blob)
    put(coordinator.store, layout.checkpoint(plan.run, plan.round, commit.checkpoint), checkpoint)
    coordinator.store.put_once(layout.commit(plan.run, plan.round), seal("commit", commit, coordinator.identity))
    clear_spool(coordinator, planned)
    return read_commit(coordinator.store, plan.run, plan.round, coordinator.identity.key)


def _step(coordinator: Coordinator, planned: Planned, aggregate: Aggregate) -> tuple[bytes, bytes | None]:
    plan = planned.plan
    base = codec.decode(read_tensors(coordinator.store, plan.base_model, plan.tensors, "base model"), plan.tensors,
                        f"base model of round {plan.round}")
    tensors, velocity_D = optimizers.step(base, _velocity(coordinator, planned), aggregate.delta_D, plan.optimizer)
    state = None if velocity_D is None else codec.encode({"velocity": velocity_D.astype(np.float32)})
    return codec.encode(tensors), state


def _velocity(coordinator: Coordinator, planned: Planned) -> npt.NDArray[np.float32] | None:
    """The server optimizer's state after the parent round."""
    sha256 = planned.parent.commit.optimizer_state
    if sha256 is None:
        return None
    schema = (TensorSpec(name="velocity", shape=(codec.coordinates(planned.plan.tensors),)),)
    state: Mapping[str, npt.NDArray[np.float32]] = codec.decode(
        read_tensors(coordinator.store, sha256, schema, "optimizer state"), schema, "optimizer state")
    return state["velocity"]


def _updates(coordinator: Coordinator, collected: Collected, aggregate: Aggregate) -> tuple[CommittedUpdate, ...]:
    return tuple(
        CommittedUpdate(site=site, answer=admitted.digest, payload=admitted.answer.payload.sha256,
                        weight=coordinator.federation.site(site).weight,
                        norm=aggregate.norms[site], distance=aggregate.distances[site])
        for site, admitted in sorted(collected.admitted.items()) if admitted.answer.kind == "update")
