"""From one delta to a committed round: blob, manifest, and last the commit."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fedround import __version__, codec, layout, optimizers
from fedround.aggregation.engine import Aggregate, Standing
from fedround.aggregation.spec import CenteredClipping
from fedround.signing import digest, seal
from fedround.types import Checkpoint, Commit, CommittedUpdate, TensorSpec, Update
from infra.stores import publish as put
from tasks import ledgers, memory, spool
from tasks.aggregate import Aggregated
from tasks.collect import Collected
from tasks.coordinator import Coordinator
from tasks.history import Committed, read_commit, read_tensors
from tasks.plan import Planned


def publish(coordinator: Coordinator, planned: Planned, collected: Collected, aggregated: Aggregated) -> Committed:
    """Take the server's step and commit the round. Of two coordinators that try, one commits; both then read the same.

    Deterministic: the same plan and the same answers give the same bytes.
    """
    plan, result = planned.plan, aggregated.result
    model, state = _step(coordinator, planned, result)
    distances = codec.encode({"distances": result.distances_NN.astype(np.float32)})
    centre = codec.encode({"centre": result.delta_D}) if isinstance(plan.aggregation.rule, CenteredClipping) else None
    remembered = memory.remain(planned, aggregated.remembered, result.standings)
    checkpoint = seal("checkpoint", Checkpoint(
        federation=plan.federation, run=plan.run, round=plan.round, log=plan.log,
        model=codec.payload_of(model), tensors=plan.tensors, recipe=plan.recipe,
        recipe_digest=plan.recipe_digest, privacy=plan.privacy, tool_version=__version__), coordinator.identity)
    commit = Commit(
        federation=plan.federation, federation_digest=plan.federation_digest, log=plan.log, run=plan.run,
        round=plan.round, parent=plan.parent, plan=planned.digest, base_model=plan.base_model, model=digest(model),
        optimizer_state=None if state is None else digest(state), checkpoint=digest(checkpoint),
        aggregation=plan.aggregation, optimizer=plan.optimizer, updates=_updates(coordinator, collected, result),
        refusals=tuple(committed for _, (_, committed) in sorted(collected.refused.items())),
        rejected=tuple(rejection for _, rejection in sorted(collected.rejected.items())),
        missing=collected.missing, note=result.note[:1000], distances=digest(distances), memory=remembered,
        ledgers=ledgers.after(planned, coordinator.federation, collected),
        centre=None if centre is None else digest(centre), tool_version=__version__)
    for blob in (model, state):
        if blob is not None:
            put(coordinator.store, layout.model(digest(blob)), blob)
    for blob in (distances, centre):
        if blob is not None:
            put(coordinator.store, layout.memory(digest(blob)), blob)
    memory.publish(coordinator.store, aggregated.remembered, remembered)
    put(coordinator.store, layout.checkpoint(plan.run, plan.round, commit.checkpoint), checkpoint)
    coordinator.store.put_once(layout.commit(plan.run, plan.round), seal("commit", commit, coordinator.identity))
    spool.clear(coordinator, planned)
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


def _updates(coordinator: Coordinator, collected: Collected, result: Aggregate) -> tuple[CommittedUpdate, ...]:
    return tuple(
        _update(admitted.answer, admitted.digest, coordinator.federation.site(site).weight, result.standings[site])
        for site, admitted in sorted(collected.admitted.items()) if admitted.answer.kind == "update")


def _update(answer: Update, document: str, weight: float, standing: Standing) -> CommittedUpdate:
    return CommittedUpdate(
        site=answer.site, answer=document, payload=answer.payload.sha256, sighting=answer.sighting,
        weight=weight, verdict=standing.verdict,
        reason=standing.reason[:300], norm=_finite(standing.norm), distance=_finite(standing.distance),
        influence=standing.influence)


def _finite(number: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return number if math.isfinite(number) else None
