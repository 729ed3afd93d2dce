"""Proof of a model's lineage from the object store alone: every signature, every hash, every link, back to round 0.

Trusts one thing: the coordinator's public key, which the auditor brings. Reads everything, writes nothing, and does not
need the Prefect server.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from fedround import codec, layout
from fedround.errors import ChainError, ContractError, NotFoundError, StoreDeniedError, TrustError
from fedround.signing import MAX_DOCUMENT_BYTES, digest, unseal
from fedround.types import (
    Checkpoint,
    Commit,
    CommittedRefusal,
    CommittedUpdate,
    Federation,
    Purpose,
    Refusal,
    RoundPlan,
    Update,
)
from infra.stores import ObjectStore
from tasks.history import last_round
from validation.updates import read_answer

_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class RoundProof:
    """What was proven of one round."""

    round: int
    commit: str
    model: str
    updates: tuple[str, ...]
    refusals: tuple[str, ...]
    signatures: int
    hashes: int
    unseen: tuple[str, ...] = ()
    """Sites whose answers this credential may not read: a site sees its own, the coordinator and an auditor see all."""


def verify_run(store: ObjectStore, run: str, coordinator: str) -> Iterator[RoundProof]:
    """Prove the rounds of a run in order.

    coordinator: the public key that must have signed the history.
    Raises TrustError or ChainError at the first thing that does not hold, ContractError if there is no such run.
    Not promised: that no rounds were taken away at the end. Compare the last commit with one that you saw before.
    """
    last = last_round(store, run)
    if last is None:
        raise ContractError(f"the store has no run '{run}'; check the name, the store and the credential")
    parent: str | None = None
    base: str | None = None
    for number in range(last + 1):
        proof, base = _prove(store, run, number, coordinator, parent, base)
        parent = proof.commit
        yield proof


def _prove(store: ObjectStore, run: str, number: int, key: str, parent: str | None,
           base: str | None) -> tuple[RoundProof, str]:
    source = f"round {number} of run '{run}'"
    document = _read(store, layout.commit(run, number), f"commit of {source}")
    commit = unseal("commit", document, Commit, key, f"commit of {source}")
    if (commit.run, commit.round, commit.parent, commit.base_model) != (run, number, parent, base):
        raise ChainError(f"commit of {source}: does not continue round {number - 1}")
    federation = _federation(store, commit, key, source)
    _model(store, commit, key, source)
    signatures, hashes, unseen = 3, 3, list[str]()
    if commit.optimizer_state is not None:
        _blob(store, commit.optimizer_state, f"optimizer state of {source}")
        hashes += 1
    if number > 0:
        plan = _plan(store, commit, key, source)
        signatures, hashes = signatures + 1, hashes + 1
        for answer in (*commit.updates, *commit.refusals):
            try:
                hashes += _answer(store, federation, plan, commit.plan or "", answer)
                signatures += 1
            except StoreDeniedError:
                unseen.append(answer.site)
        _check_everybody(commit, plan, federation, source)
    return RoundProof(number, digest(document), commit.model, tuple(u.site for u in commit.updates),
                      tuple(r.site for r in commit.refusals), signatures, hashes, tuple(unseen)), commit.model


def _federation(store: ObjectStore, commit: Commit, key: str, source: str) -> Federation:
    document = _read(store, layout.federation(commit.federation_digest), f"federation file of {source}")
    _same(digest(document), commit.federation_digest, f"federation file of {source}")
    return unseal("federation", document, Federation, key, f"federation file of {source}")


def _model(store: ObjectStore, commit: Commit, key: str, source: str) -> None:
    document = _read(store, layout.checkpoint(commit.run, commit.round, commit.checkpoint), f"checkpoint of {source}")
    _same(digest(document), commit.checkpoint, f"checkpoint of {source}")
    checkpoint = unseal("checkpoint", document, Checkpoint, key, f"checkpoint of {source}")
    _same(checkpoint.model.sha256, commit.model, f"model in the checkpoint of {source}")
    size = _blob(store, commit.model, f"model of {source}")
    if size != checkpoint.model.size_bytes or size != codec.size_bytes(checkpoint.tensors):
        raise TrustError(f"model of {source}: {size} bytes, its checkpoint says {checkpoint.model.size_bytes}")


def _plan(store: ObjectStore, commit: Commit, key: str, source: str) -> RoundPlan:
    """The plan that the commit names, among the attempts at the round."""
    for attempt in range(1, 100):
        try:
            document = store.get(layout.plan(commit.run, commit.round, attempt, Purpose.TRAIN),
                                 max_bytes=MAX_DOCUMENT_BYTES)
        except NotFoundError:
            break
        if digest(document) == commit.plan:
            plan = unseal("plan", document, RoundPlan, key, f"plan of {source}")
            if (plan.federation_digest, plan.parent, plan.base_model, plan.rule, plan.optimizer) != (
                    commit.federation_digest, commit.parent, commit.base_model, commit.rule, commit.optimizer):
                raise ChainError(f"plan of {source}: asks for something else than what was committed")
            return plan
    raise ChainError(f"plan of {source}: the plan that the commit names is not in the store")


def _answer(store: ObjectStore, federation: Federation, plan: RoundPlan, plan_digest: str,
            committed: CommittedUpdate | CommittedRefusal) -> int:
    """Prove one site's answer, and an update's tensors; returns how many hashes that took."""
    site, source = committed.site, f"answer of '{committed.site}' in round {plan.round}"
    where = site, plan.run, plan.round, plan.attempt, plan.purpose
    if isinstance(committed, CommittedRefusal):
        documents = (_read(store, key, source) for key in store.list(layout.refusals(*where)))
        document = next((d for d in documents if digest(d) == committed.answer), None)
        if document is None:
            raise TrustError(f"{source}: the refusal that the history names is not in the store")
    else:
        document = _read(store, layout.answer(*where), source)
        _same(digest(document), committed.answer, source)
    answer = read_answer(document, plan, plan_digest, federation.site(site))
    if isinstance(committed, CommittedRefusal):
        if not isinstance(answer, Refusal):
            raise TrustError(f"{source}: the history says that it refused, and it did not")
        return 1
    if not isinstance(answer, Update) or answer.payload.sha256 != committed.payload:
        raise TrustError(f"{source}: is not the update that was committed")
    found, _ = _hash(store, layout.delta(site, plan.run, plan.round, plan.attempt))
    _same(found, committed.payload, f"tensors of '{site}' in round {plan.round}")
    return 2


def _check_everybody(commit: Commit, plan: RoundPlan, federation: Federation, source: str) -> None:
    """Nobody is left out, counted twice or given another weight than was agreed, and the quorum was met."""
    named = [entry.site for entry in (*commit.updates, *commit.refusals, *commit.rejected)] + list(commit.missing)
    if sorted(named) != sorted(plan.cohort):
        raise ChainError(f"commit of {source}: does not name every site of the cohort once")
    if len(commit.updates) < plan.quorum:
        raise ChainError(f"commit of {source}: {len(commit.updates)} updates, its plan asks for a quorum of {plan.quorum}")
    for update in commit.updates:
        if update.weight != federation.site(update.site).weight:
            raise ChainError(f"commit of {source}: gives '{update.site}' another weight than the federation file")


def _blob(store: ObjectStore, sha256: str, source: str) -> int:
    found, size = _hash(store, layout.model(sha256))
    _same(found, sha256, source)
    return size


def _hash(store: ObjectStore, key: str) -> tuple[str, int]:
    info = store.head(key)
    if info is None:
        raise TrustError(f"'{key}' is named by a commit and is not in the store")
    hasher = hashlib.sha256()
    for start in range(0, info.size_bytes, _CHUNK_BYTES):
        hasher.update(store.get_range(key, start, _CHUNK_BYTES))
    return hasher.hexdigest(), info.size_bytes


def _read(store: ObjectStore, key: str, source: str) -> bytes:
    try:
        return store.get(key, max_bytes=MAX_DOCUMENT_BYTES)
    except NotFoundError:
        raise ChainError(f"{source}: is not in the store") from None


def _same(found: str, expected: str, source: str) -> None:
    if found != expected:
        raise TrustError(f"{source}: the stored bytes have digest {found[:16]}…, the history names {expected[:16]}…")
