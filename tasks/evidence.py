"""What lies in the store under a name, read and held against the digest that names it. For proofs: nothing is believed."""

from __future__ import annotations

import hashlib

from fedround import codec, layout
from fedround.agreement import Federation
from fedround.codec import Tensors
from fedround.errors import ChainError, NotFoundError, StoreDeniedError, TrustError
from fedround.learning.start import read as read_start
from fedround.records import (
    Answer,
    Checkpoint,
    Commit,
    CommittedRefusal,
    CommittedUpdate,
    Finding,
    Plan,
    Refusal,
    SiteAnswer,
    Told,
    Update,
)
from fedround.signing import MAX_DOCUMENT_BYTES, digest, unseal
from fedround.values import MAX_ATTEMPTS, Digest, Purpose
from infra.stores import ObjectStore
from validation.payloads import intake_of
from validation.updates import read_answer


_STATE = {"rest": "rest of the model", "optimizer": "optimizer state"}


def model(store: ObjectStore, commit: Commit, key: str, source: str) -> None:
    """The checkpoint and the model that a commit names."""
    document = read(store, layout.checkpoint(commit.run, commit.round, commit.checkpoint), f"checkpoint of {source}")
    same(digest(document), commit.checkpoint, f"checkpoint of {source}")
    checkpoint = unseal("checkpoint", document, Checkpoint, key, f"checkpoint of {source}")
    same(checkpoint.model.sha256, commit.model, f"model in the checkpoint of {source}")
    if checkpoint.rest != commit.blob("rest"):
        raise TrustError(f"checkpoint of {source}: has other parts that do not travel than its commit")
    size = blob(store, commit.model, f"model of {source}")
    if size != checkpoint.model.size_bytes or size != codec.size_bytes(checkpoint.tensors):
        raise TrustError(f"model of {source}: {size} bytes, its checkpoint says {checkpoint.model.size_bytes}")


def plan(store: ObjectStore, said: Commit | Finding, purpose: Purpose, key: str, source: str) -> Plan:
    """The plan that a commit or a finding names, among the attempts at the question."""
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            document = store.get(layout.plan(said.run, said.round, attempt, purpose), max_bytes=MAX_DOCUMENT_BYTES)
        except NotFoundError:
            break
        if digest(document) == said.plan:
            return unseal("plan", document, Plan, key, f"plan of {source}")
    raise ChainError(f"plan of {source}: the plan that the {'commit' if purpose == 'train' else 'finding'} names is not in "
                     "the store")


def refusal(store: ObjectStore, members: Federation, plan: Plan, plan_digest: Digest, committed: CommittedRefusal) -> None:
    """One site's "no", among those it gave."""
    source = f"answer of '{committed.site}' in round {plan.round}"
    where = committed.site, plan.run, plan.round, plan.attempt, plan.asks.kind
    documents = (read(store, key, source) for key in store.list(layout.refusals(*where)))
    document = next((found for found in documents if digest(found) == committed.answer), None)
    if document is None:
        raise TrustError(f"{source}: the refusal that the history names is not in the store")
    if not isinstance(read_answer(document, plan, plan_digest, members.site(committed.site)), Refusal):
        raise TrustError(f"{source}: the history says that it refused, and it did not")


def answer(store: ObjectStore, members: Federation, plan: Plan, plan_digest: Digest, told: Told) -> Answer:
    """What one site said to a question that makes no model."""
    found, source = _said(store, members, plan, plan_digest, told.site, told.answer)
    if not isinstance(found, Answer):
        raise TrustError(f"{source}: the history says that it answered, and it refused")
    return found


def update(store: ObjectStore, members: Federation, plan: Plan, plan_digest: Digest, committed: CommittedUpdate) -> Answer:
    """One site's answer with its update, and the update's tensors."""
    found, source = _said(store, members, plan, plan_digest, committed.site, committed.answer)
    sent = found.update if isinstance(found, Answer) else None
    if not isinstance(found, Answer) or sent is None or (
            sent.payload.sha256, found.sighting) != (committed.payload, committed.sighting):
        raise TrustError(f"{source}: is not the update that was committed")
    _tensors_of(store, plan, committed.site, sent, source)
    return found


def _said(store: ObjectStore, members: Federation, plan: Plan, plan_digest: Digest, site: str,
          named: Digest) -> tuple[SiteAnswer, str]:
    source = f"answer of '{site}' in round {plan.round}"
    document = read(store, layout.answer(site, plan.run, plan.round, plan.attempt, plan.asks.kind), source)
    same(digest(document), named, source)
    return read_answer(document, plan, plan_digest, members.site(site)), source


def _tensors_of(store: ObjectStore, plan: Plan, site: str, sent: Update, source: str) -> None:
    intake, key = intake_of(sent, plan, site), layout.delta(site, plan.run, plan.round, plan.attempt)
    try:
        for start in range(0, intake.size_bytes, codec.CHUNK_BYTES):
            intake.take(store.get_range(key, start, intake.wanted + (start + intake.wanted == intake.size_bytes)))
    except NotFoundError:
        raise TrustError(f"{source}: its tensors are not in the store") from None
    intake.done()


def state(store: ObjectStore, commit: Commit, source: str) -> int:
    """Prove the parts of a round's state that everybody may read; returns how many hashes that took."""
    named = [one for one in commit.state if one.readers == "everybody"
             and (one.name != "rest" or commit.round == 0)]        # the same in every round
    for one in named:
        blob(store, one.digest, f"{_STATE.get(one.name, one.name)} of {source}")
    return len(named)


def memory(store: ObjectStore, commit: Commit) -> int | None:
    """Prove what the coordinator remembers; returns how many hashes that took, None if this credential may not read it."""
    kept = {one.digest for one in commit.state if one.readers == "coordinator"}
    digests = sorted(kept | {remembered.average for remembered in commit.memory})
    try:
        for sha256 in digests:
            found, _ = _hash(store, layout.memory(sha256))
            same(found, sha256, f"memory of round {commit.round} of run '{commit.run}'")
    except StoreDeniedError:
        return None
    return len(digests)


def start(store: ObjectStore, commit: Commit, sha256: str, source: str) -> None:
    """The checkpoint that the federation file names; and the run's first model, with its rest, holds every number of it."""
    checkpoint = _tensors(store, sha256, f"checkpoint with which {source} begins")
    held = dict(_tensors(store, commit.model, f"model of {source}"))
    if (rest := commit.blob("rest")) is not None:
        held |= _tensors(store, rest, f"rest of the model of {source}")
    for name, array in sorted(checkpoint.items()):
        if name not in held or held[name].tobytes() != array.tobytes():
            raise ChainError(f"model of {source}: does not begin with '{name}' of the checkpoint that the federation file "
                             "names")


def blob(store: ObjectStore, sha256: str, source: str) -> int:
    """A model or an optimizer state; returns its size in bytes."""
    found, size = _hash(store, layout.model(sha256))
    same(found, sha256, source)
    return size


def read(store: ObjectStore, key: str, source: str) -> bytes:
    """A signed document. Raises ChainError if it is not there."""
    try:
        return store.get(key, max_bytes=MAX_DOCUMENT_BYTES)
    except NotFoundError:
        raise ChainError(f"{source}: is not in the store") from None


def same(found: str, expected: str, source: str) -> None:
    """Raises TrustError if two digests differ."""
    if found != expected:
        raise TrustError(f"{source}: the stored bytes have digest {found[:16]}…, the history names {expected[:16]}…")


def _tensors(store: ObjectStore, sha256: str, source: str) -> Tensors:
    body = store.get(layout.model(sha256))
    same(digest(body), sha256, source)
    return read_start(body)


def _hash(store: ObjectStore, key: str) -> tuple[str, int]:
    info = store.head(key)
    if info is None:
        raise TrustError(f"'{key}' is named by a commit and is not in the store")
    hasher = hashlib.sha256()
    for start in range(0, info.size_bytes, codec.CHUNK_BYTES):
        hasher.update(store.get_range(key, start, codec.CHUNK_BYTES))
    return hasher.hexdigest(), info.size_bytes
