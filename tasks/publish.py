"""From one delta to a committed round: blob, manifest, and last the commit."""

from __future__ import annotations

import math

import numpy as np

from fedround import __version__, codec, layout
from fedround.aggregation.engine import Aggregate, Standing
from fedround.aggregation.spec import CenteredClipping
from fedround.signing import digest, seal
from fedround.types import Checkpoint, Commit, CommittedUpdate, Update
from infra.stores import publish as put
from tasks import ledgers, memory, spool
from tasks.aggregate import Aggregated
from tasks.collect import Collected
from tasks.coordinator import Coordinator
from tasks.history import Committed, read_commit
from tasks.plan import Planned
from tasks.step import take_step
from tasks.weights import to_commit, weights_of


def publish(coordinator: Coordinator, planned: Planned, collected: Collected, aggregated: Aggregated) -> Committed:
    """Take the server's step and commit the round. Of two coordinators that try, one commits; both then read the same.

    Deterministic: the same plan and the same answers give the same bytes.
    """
    plan, result = planned.plan, aggregated.result
    weights = weights_of(plan, planned.parent.commit, coordinator.federation, collected.updates)
    stepped = take_step(coordinator.store, plan, planned.parent.commit, result, weights)
    distances = codec.encode({"distances": result.distances_NN.astype(np.float32)})
    centre = codec.encode({"centre": result.delta_D}) if isinstance(plan.aggregation.rule, CenteredClipping) else None
    remembered = memory.remain(planned, aggregated.remembered, result.standings)
    model, state, control = codec.payload_of(stepped.model), _name(stepped.state), _name(stepped.control)
    checkpoint = seal("checkpoint", Checkpoint(
        federation=plan.federation, run=plan.run, round=plan.round, log=plan.log,
        model=model, tensors=plan.tensors, parts=plan.parts, rest=plan.rest, recipe=plan.recipe,
        recipe_digest=plan.recipe_digest, privacy=plan.privacy, tool_version=__version__), coordinator.identity)
    commit = Commit(
        federation=plan.federation, federation_digest=plan.federation_digest, log=plan.log, run=plan.run,
        round=plan.round, parent=plan.parent, plan=planned.digest, base_model=plan.base_model, model=model.sha256,
        optimizer_state=state, control=control, checkpoint=digest(checkpoint),
        aggregation=plan.aggregation, optimizer=plan.optimizer, updates=_updates(coordinator, collected, result),
        refusals=tuple(committed for _, (_, committed) in sorted(collected.refused.items())),
        rejected=tuple(rejection for _, rejection in sorted(collected.rejected.items())),
        missing=collected.missing, note=result.note[:1000], distances=digest(distances), memory=remembered,
        ledgers=ledgers.after(planned, coordinator.federation, collected),
        centre=_name(centre), weights=to_commit(plan, weights), rest=plan.rest, tool_version=__version__)
    for name, blob in ((model.sha256, stepped.model), (state, stepped.state), (control, stepped.control)):
        if name is not None and blob is not None:
            put(coordinator.store, layout.model(name), blob, sha256=name)
    for blob in (distances, centre):
        if blob is not None:
            put(coordinator.store, layout.memory(digest(blob)), blob)
    memory.publish(coordinator, aggregated.remembered, remembered)
    put(coordinator.store, layout.checkpoint(plan.run, plan.round, commit.checkpoint), checkpoint)
    coordinator.store.put_once(layout.commit(plan.run, plan.round), seal("commit", commit, coordinator.identity))
    spool.clear(coordinator, planned)
    memory.forget(coordinator, remembered)
    return read_commit(coordinator.store, plan.run, plan.round, coordinator.identity.key)


def _updates(coordinator: Coordinator, collected: Collected, result: Aggregate) -> tuple[CommittedUpdate, ...]:
    return tuple(
        committed(admitted.answer, admitted.digest, coordinator.federation.site(site).weight, result.standings[site])
        for site, admitted in sorted(collected.admitted.items()) if admitted.answer.kind == "update")


def committed(answer: Update, document: str, weight: float, standing: Standing) -> CommittedUpdate:
    """What a commit says of an update. document: the digest of the signed answer."""
    return CommittedUpdate(
        site=answer.site, answer=document, payload=answer.payload.sha256, size_bytes=answer.payload.size_bytes,
        sighting=answer.sighting, weight=weight, verdict=standing.verdict, reason=standing.reason[:300],
        norm=_finite(standing.norm), distance=_finite(standing.distance),
        influence=standing.influence)


def _name(blob: bytes | None) -> str | None:
    return None if blob is None else digest(blob)


def _finite(number: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return number if math.isfinite(number) else None
