"""What lies in the store under a name, read and compared with the digest that names it.

For proofs: nothing is believed. What lies below a member's prefix is that member's to alter, whenever it likes. So what is
altered or gone there is a LostError: of that member, and of nobody else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fedround import codec, layout
from fedround.codec import Form, Tensors
from fedround.errors import ChainError, CodecError, LostError, NotFoundError, StoreDeniedError, TooLargeError, TrustError
from fedround.federation import Federation
from fedround.learning.start import read as read_start
from fedround.records import (
    Answer,
    Begun,
    Checkpoint,
    Commit,
    CommittedRefusal,
    CommittedUpdate,
    Plan,
    Refusal,
    SiteAnswer,
    Told,
    Update,
)
from fedround.signing import MAX_DOCUMENT_BYTES, digest
from fedround.values import Digest, Payload
from infra.documents import prove, read_named
from infra.history import read_checkpoint, read_commit
from infra.stores import ObjectStore
from tasks.plan import Planned
from tasks.spool import taken
from validation.payloads import Intake, intake_of
from validation.updates import read_answer

_STATE = {"rest": "rest of the model", "optimizer": "optimizer state"}


def model(store: ObjectStore, commit: Commit, key: str, source: str) -> Checkpoint:
    """The checkpoint, which is returned, and the model that a commit names."""
    checkpoint = read_checkpoint(store, commit, key)
    size = blob(store, commit.model, f"model of {source}")
    if size != checkpoint.model.size_bytes or size != codec.size_bytes(checkpoint.tensors):
        raise TrustError(f"model of {source}: {size} bytes, its checkpoint says {checkpoint.model.size_bytes}")
    return checkpoint


def refusal(store: ObjectStore, members: Federation, asked: Planned, committed: CommittedRefusal) -> None:
    """Prove the refusal of a site that the history names. The site may have given several."""
    plan = asked.plan
    source = f"answer of '{committed.site}' in round {plan.round}"
    where = committed.site, plan.run, plan.round, plan.attempt, plan.asks.kind
    keys = (key for _ in range(2) for key in store.list(layout.refusals(*where)) if layout.parse_refusal(key) is not None)
    documents = (document for key in keys if (document := _document(store, key)) is not None)
    document = next((found for found in documents if digest(found) == committed.answer), None)      # looked for twice
    if document is None:
        raise LostError(f"{source}: the refusal that the history names is not in the store")
    if not isinstance(read_answer(document, plan, asked.digest, members.site(committed.site)), Refusal):
        raise TrustError(f"{source}: the history says that it refused, but it did not")


def _document(store: ObjectStore, key: str) -> bytes | None:
    """What lies there; None if it is too large for a document: a site may put anything there."""
    try:
        return store.get(key, max_bytes=MAX_DOCUMENT_BYTES)
    except TooLargeError:
        return None


def answer(store: ObjectStore, members: Federation, plan: Plan, plan_digest: Digest, told: Told) -> Answer:
    """What one site said to a question that makes no model."""
    found, source = _said(store, members, plan, plan_digest, told.site, told.answer)
    if not isinstance(found, Answer):
        raise TrustError(f"{source}: the history says that it answered, and it refused")
    return found


def update(store: ObjectStore, members: Federation, asked: Planned, committed: CommittedUpdate) -> Answer:
    """One site's answer with its update, and the update's tensors. asked: what the site was asked (`Planned.of`)."""
    plan = asked.plan
    found, source = _said(store, members, plan, asked.digest, committed.site, committed.answer)
    payload = found.payload if isinstance(found, Answer) else None
    if not isinstance(found, Answer) or payload is None or (payload.sha256, found.sighting) != (
            committed.payload, committed.sighting) or committed.within_clip != (
            None if found.update is None else found.update.within_clip):
        raise TrustError(f"{source}: is not the update that was committed")
    if found.update is None:
        for _ in _file_of(store, plan, committed.site, payload, source):
            pass
    else:
        _tensors_of(store, plan, committed.site, found.update, source)
    return found


def file(store: ObjectStore, plan: Plan, answer: Answer) -> bytes:
    """What lies beside a proven answer for secure sums: a masked vector, or what is about keys."""
    source = f"answer of '{answer.site}' in round {plan.round}"
    if answer.payload is None:
        raise TrustError(f"{source}: nothing lies beside it")
    return b"".join(_file_of(store, plan, answer.site, answer.payload, source))


def _file_of(store: ObjectStore, plan: Plan, site: str, payload: Payload, source: str) -> Iterator[bytes]:
    intake = Intake(Form(b"", payload.size_bytes), payload.sha256, f"{source}: its file", payload.chunks)
    with _of_a_member(source):
        yield from taken(store, layout.payload(site, plan.run, plan.round, plan.attempt, plan.asks.kind), intake)
        intake.done()


def _said(store: ObjectStore, members: Federation, plan: Plan, plan_digest: Digest, site: str,
          named: Digest) -> tuple[SiteAnswer, str]:
    source = f"answer of '{site}' in round {plan.round}"
    with _of_a_member(source):
        document = read_named(store, layout.answer(site, plan.run, plan.round, plan.attempt, plan.asks.kind), named, source)
    return read_answer(document, plan, plan_digest, members.site(site)), source


def _tensors_of(store: ObjectStore, plan: Plan, site: str, sent: Update, source: str) -> None:
    intake, key = intake_of(sent, plan, site), layout.delta(site, plan.run, plan.round, plan.attempt)
    with _of_a_member(source):
        for _ in taken(store, key, intake):
            pass
        intake.done()


@contextmanager
def _of_a_member(source: str) -> Iterator[None]:
    """Around reading what a member signed and may have altered since."""
    try:
        yield
    except NotFoundError:
        raise LostError(f"{source}: its tensors are not in the store") from None
    except (TrustError, CodecError, TooLargeError) as error:
        raise LostError(str(error)) from None


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
            prove(store, layout.memory(sha256), sha256, f"memory of round {commit.round} of run '{commit.run}'")
    except StoreDeniedError:
        return None
    return len(digests)


def start(store: ObjectStore, commit: Commit, sha256: str, source: str) -> None:
    """Prove the checkpoint that the federation file names, and that the run's first model holds all its numbers."""
    checkpoint = _tensors(store, sha256, f"checkpoint with which {source} begins")
    held = dict(_tensors(store, commit.model, f"model of {source}"))
    if (rest := commit.blob("rest")) is not None:
        held |= _tensors(store, rest, f"rest of the model of {source}")
    for name, array in sorted(checkpoint.items()):
        if name not in held or held[name].tobytes() != array.tobytes():
            raise ChainError(f"model of {source}: does not begin with '{name}' of the checkpoint that the federation file "
                             "names")


def after(store: ObjectStore, commit: Commit, begun: Begun, key: str, source: str) -> None:
    """Prove that a run's first model is the one that a round of another run has made: what that run's own proof is about."""
    try:
        earlier = read_commit(store, begun.run, begun.round, key)
    except NotFoundError:
        raise ChainError(f"model of {source}: round {begun.round} of run '{begun.run}', with whose model it begins, is not "
                         "committed") from None
    if (earlier.digest, earlier.commit.model, earlier.commit.blob("rest")) != (
            begun.commit, commit.model, commit.blob("rest")) or begun.run == commit.run:
        raise ChainError(f"model of {source}: is not the one that round {begun.round} of run '{begun.run}' has made")


def blob(store: ObjectStore, sha256: Digest, source: str) -> int:
    """A model or an optimizer state; returns its size in bytes."""
    return prove(store, layout.model(sha256), sha256, source)


def _tensors(store: ObjectStore, sha256: Digest, source: str) -> Tensors:
    return read_start(read_named(store, layout.model(sha256), sha256, source, max_bytes=None))
