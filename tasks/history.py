"""The committed rounds of a run, as the store tells them. Read by the coordinator's steps; `verify` trusts none of it."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from fedround import codec, layout
from fedround.codec import Schema
from fedround.errors import TrustError
from fedround.learning.parts import NO_REST, Rest, schemas
from fedround.learning.recipe import Recipe
from fedround.signing import MAX_DOCUMENT_BYTES, digest, unseal
from fedround.records import Checkpoint, Commit, Purpose, Plan
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


def read_plan(store: ObjectStore, commit: Commit, coordinator: str) -> tuple[Plan, str]:
    """The plan that a commit names, and its digest. Raises NotFoundError if none of the round's attempts is that one."""
    source = f"plan of round {commit.round} of run '{commit.run}'"
    for attempt in itertools.count(1):
        document = store.get(layout.plan(commit.run, commit.round, attempt, Purpose.TRAIN), max_bytes=MAX_DOCUMENT_BYTES)
        if digest(document) == commit.plan:
            return unseal("plan", document, Plan, coordinator, source), digest(document)
    raise AssertionError("unreachable")


def read_checkpoint(store: ObjectStore, commit: Commit, coordinator: str) -> Checkpoint:
    """What the round's model is. Raises TrustError if it is not the one that the commit names."""
    document = store.get(layout.checkpoint(commit.run, commit.round, commit.checkpoint), max_bytes=MAX_DOCUMENT_BYTES)
    source = f"checkpoint of round {commit.round} of run '{commit.run}'"
    if digest(document) != commit.checkpoint:
        raise TrustError(f"{source}: is not the one that the commit names")
    return unseal("checkpoint", document, Checkpoint, coordinator, source)


def read_tensors(store: ObjectStore, sha256: str, schema: Schema, source: str) -> bytes:
    """The bytes of a model, checked against their name. Raises TrustError if they are others."""
    body = store.get(layout.model(sha256), max_bytes=codec.size_bytes(schema))
    if digest(body) != sha256:
        raise TrustError(f"{source}: the stored bytes do not have the digest that names them")
    return body


def read_rest(store: ObjectStore, recipe: Recipe, model: Checkpoint | Plan) -> Rest:
    """What a model has besides what travels: the frozen tensors, and where private ones begin. Raises as `read_tensors`."""
    if model.rest is None:
        return NO_REST
    found, source = schemas(recipe, model.parts), f"rest of the model of run '{model.run}'"
    return found.rest_of(codec.decode(read_tensors(store, model.rest, found.rest, source), found.rest, source))
