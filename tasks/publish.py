"""From one delta to a committed round: blobs, manifest, and last the commit."""

from __future__ import annotations

import math

from fedround import __version__, codec, layout
from fedround.aggregation.engine import Standing
from fedround.records import Answer, Checkpoint, Commit, CommittedUpdate
from fedround.rounds.clusters import picked_in
from fedround.rounds.tickets import ticket_of
from fedround.signing import digest, seal
from fedround.values import Payload
from infra.history import Committed, read_commit
from infra.stores import publish as put
from tasks import ledgers, memory, spool
from tasks.afterwards import afterwards
from tasks.aggregate import Aggregated
from tasks.begin import Committing, put_alone
from tasks.collected import Collected
from tasks.coordinator import Coordinator
from tasks.decay import score_of
from tasks.plan import Planned
from tasks.step import take_step
from tasks.weights import loss_of, to_commit


def publish(coordinator: Coordinator, planned: Planned, collected: Collected, aggregated: Aggregated,
            how: Committing | None = None) -> Committed:
    """Take the server's step and commit the round. If two coordinators try, one commits, and both then read the same.

    Deterministic: the same plan and the same answers give the same bytes. how: as in `tasks.begin.head_of`.
    """
    plan, store, stepped = planned.plan, coordinator.store, take_step(coordinator.store, planned, aggregated)
    model = codec.payload_of(stepped.model)
    checkpoint = seal(Checkpoint(
        federation=plan.federation, run=plan.run, round=plan.round, log=plan.log, model=model,
        tensors=plan.tensors, clusters=plan.agreed.clusters, parts=plan.agreed.parts, rest=plan.rest,
        partition=plan.asks.partition, choice=plan.agreed.choice, recipe=plan.agreed.recipe,
        recipe_digest=plan.agreed.recipe_digest, privacy=plan.agreed.privacy, tool_version=__version__), coordinator.identity)
    commit = Commit(
        federation=plan.federation, federation_digest=plan.federation_digest, log=plan.log, run=plan.run, round=plan.round,
        parent=plan.parent, plan=planned.digest, agreed=plan.agreed, base_model=plan.base_model, model=model.sha256,
        checkpoint=digest(checkpoint), state=stepped.state,
        updates=committed_updates(coordinator, planned, collected, aggregated),
        refusals=tuple(refused.committed for _, refused in sorted(collected.refused.items())),
        rejected=tuple(rejection for _, rejection in sorted(collected.rejected.items())),
        missing=collected.missing, note=aggregated.result.note[:1000], memory=aggregated.memory,
        ledgers=ledgers.after(planned.parent.commit, coordinator.federation, collected.answers),
        weights=to_commit(plan, aggregated.weights), sum=None if collected.sum is None else collected.sum.said,
        totals=() if collected.sum is None else collected.sum.read.totals,
        regions=() if collected.regional is None else collected.regional.told, score=score_of(plan, collected.answers),
        tool_version=__version__)
    put(store, layout.model(commit.model), stepped.model, sha256=commit.model,
        journal=spool.folder(coordinator, planned) / f"{commit.model}.upload")
    for part in stepped.parts:
        put(store, layout.blob(part.blob), part.body, sha256=part.blob.digest)
    aggregated.shelf.publish(coordinator, aggregated.averages)
    put(store, layout.checkpoint(plan.run, plan.round, commit.checkpoint), checkpoint, sha256=commit.checkpoint)
    (how or put_alone)(coordinator, commit)
    with afterwards("a tidy spool"):
        spool.clear(coordinator, planned)
        memory.forget(coordinator, commit.memory)
    coordinator.committed[plan.run] = done = read_commit(store, plan.run, plan.round, coordinator.key)
    return done


def committed_updates(coordinator: Coordinator, planned: Planned, collected: Collected,
                      aggregated: Aggregated) -> tuple[CommittedUpdate, ...]:
    """What the commit says of every update."""
    return tuple(
        committed(admitted.answer, payload, admitted.digest, coordinator.federation.site(site).weight,
                  aggregated.result.standings[site], loss_of(planned, coordinator.federation, admitted.answer),
                  ticket_of(planned.plan, site), picked_in(planned.plan, admitted.answer))
        for site, admitted in sorted(collected.admitted.items()) if (payload := admitted.answer.payload) is not None)


def committed(answer: Answer, payload: Payload, document: str, weight: float, standing: Standing,
              loss: float | None, ticket: int | None, cluster: int | None = None) -> CommittedUpdate:
    """What a commit says of an answer's update, or of its masked vector. document: the digest of the signed answer. loss: as
    `tasks.weights.loss_of`. ticket: the earlier round whose plan it answers, if it does. cluster: which of several models it
    is of.
    """
    return CommittedUpdate(
        site=answer.site, answer=document, payload=payload.sha256, size_bytes=payload.size_bytes, sighting=answer.sighting,
        weight=weight, cluster=cluster, within_clip=None if answer.update is None else answer.update.within_clip, loss=loss,
        verdict=standing.verdict,
        reason=standing.reason[:300], norm=_finite(standing.norm), distance=_finite(standing.distance),
        influence=standing.influence, ticket=ticket)


def _finite(number: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return number if math.isfinite(number) else None
