"""The committed rounds of a run, as the store tells them. Read by the coordinator's steps; `verify` trusts none of it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from fedround import codec, layout
from fedround.codec import Schema, Tensors
from fedround.errors import NotFoundError, TrustError
from fedround.learning.parts import NO_REST, Rest
from fedround.learning.recipe import Recipe, schemas
from fedround.learning.spec import Parts
from fedround.records import Answer, Checkpoint, Commit, CommittedUpdate, Plan
from fedround.signing import MAX_DOCUMENT_BYTES, digest, unseal
from fedround.values import MAX_ATTEMPTS, Digest, Purpose, parse
from infra.stores import ObjectStore


@dataclass(frozen=True)
class Committed:
    """A committed round and the digest that the next plan must name as its parent."""

    commit: Commit
    digest: str


def last_round(store: ObjectStore, run: str) -> int | None:
    """The number of the last committed round; None if the run has not begun."""
    numbers = [int(found[1]) for key in store.list(layout.rounds(run))
               if (found := re.search(r"/(\d{5})/commit\.json$", key))]
    return max(numbers, default=None)


def read_commit(store: ObjectStore, run: str, number: int, coordinator: str) -> Committed:
    """One committed round. Raises NotFoundError, or TrustError if the signature does not hold."""
    document = store.get(layout.commit(run, number), max_bytes=MAX_DOCUMENT_BYTES)
    commit = unseal("commit", document, Commit, coordinator, f"commit of round {number} of run '{run}'")
    return Committed(commit, digest(document))


def read_plan(store: ObjectStore, commit: Commit, coordinator: str) -> Plan:
    """The plan that a commit names. Raises NotFoundError if none of the round's attempts is that one."""
    for attempt in range(1, MAX_ATTEMPTS + 1):
        plan, named = read_plan_at(store, commit.run, commit.round, attempt, "train", coordinator)
        if named == commit.plan:
            return plan
    raise NotFoundError(f"the plan that the commit of round {commit.round} of run '{commit.run}' names is not in the store")


def read_plan_at(store: ObjectStore, run: str, number: int, attempt: int, purpose: Purpose,
                 coordinator: str) -> tuple[Plan, str]:
    """One plan and its digest. Raises NotFoundError, or TrustError if the signature does not hold."""
    key = layout.plan(run, number, attempt, purpose)
    document = store.get(key, max_bytes=MAX_DOCUMENT_BYTES)
    return unseal("plan", document, Plan, coordinator, f"'{key}'"), digest(document)


def read_answer(store: ObjectStore, plan: Plan, committed: CommittedUpdate) -> Answer:
    """What a site said whose update our own commit names by digest. Raises TrustError if the stored bytes are others."""
    source = f"answer of site '{committed.site}' in round {plan.round}"
    where = layout.answer(committed.site, plan.run, plan.round, plan.attempt, plan.asks.kind)
    document = store.get(where, max_bytes=MAX_DOCUMENT_BYTES)
    if digest(document) != committed.answer:
        raise TrustError(f"{source}: is not the one that the commit names")
    return parse(Answer, json.loads(document)["body"], source)


def read_checkpoint(store: ObjectStore, commit: Commit, coordinator: str) -> Checkpoint:
    """What the round's model is. Raises TrustError if it is not the one that the commit names."""
    document = store.get(layout.checkpoint(commit.run, commit.round, commit.checkpoint), max_bytes=MAX_DOCUMENT_BYTES)
    source = f"checkpoint of round {commit.round} of run '{commit.run}'"
    if digest(document) != commit.checkpoint:
        raise TrustError(f"{source}: is not the one that the commit names")
    return unseal("checkpoint", document, Checkpoint, coordinator, source)


def read_tensors(store: ObjectStore, sha256: Digest, schema: Schema, source: str) -> Tensors:
    """A model, or a part of a round's state that everybody may read. Raises TrustError if its bytes are other than named."""
    return read_blob(store, layout.model(sha256), sha256, schema, source)


def read_blob(store: ObjectStore, key: str, sha256: Digest, schema: Schema, source: str) -> Tensors:
    """A tensor file, checked against its name. Raises TrustError if its bytes are others."""
    body = store.get(key, max_bytes=codec.size_bytes(schema))
    if digest(body) != sha256:
        raise TrustError(f"{source}: the stored bytes do not have the digest that names them")
    return codec.decode(body, schema, source)


def read_rest(store: ObjectStore, recipe: Recipe, parts: Parts, rest: Digest | None, run: str) -> Rest:
    """What a model has besides what travels: the frozen tensors, and where private ones begin. Raises as `read_tensors`."""
    if rest is None:
        return NO_REST
    found = schemas(recipe, parts)
    return found.rest_of(read_tensors(store, rest, found.rest, f"rest of the model of run '{run}'"))
