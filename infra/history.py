"""What lies in the store under a digest or a signed name: read, and compared with it.

The coordinator's steps, an auditor's proof and a site's process read a history with the same functions. A *place*
(`read_commit`, `read_plan_at`, `read_finding`) is where something ought to be: NotFoundError if nothing is there, and what is
there must be signed for that place. A *name* stands in a signed document. What it names must be there (else ChainError), and
must be exactly those bytes (else TrustError). `coordinator` is the public key that must have signed.

Whoever may write to the bucket may put anything anywhere. So an object under a name that no signed document gives is not
looked at. An object in a place that it is not signed for is an error, which names the place for whoever must repair it. A
number is never believed because an object has it in its name (`newest`).

Nothing here says that one round continues another: that is checked by the caller, which reads both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from fedround import codec, layout
from fedround.codec import Schema, Tensors
from fedround.errors import ChainError, ContractError, NotFoundError, SignatureError, TooLargeError, TrustError
from fedround.federation import Federation
from fedround.learning.parts import NO_REST, Rest
from fedround.learning.recipe import Recipe, schemas
from fedround.learning.spec import Parts
from fedround.records import Answer, Checkpoint, Commit, CommittedUpdate, Cosignature, Finding, Plan
from fedround.signing import MAX_DOCUMENT_BYTES, digest, envelope, unseal
from fedround.values import MAX_ATTEMPTS, Digest, Name, Purpose, parse
from infra.stores import ObjectStore, judged, there

T = TypeVar("T")

_OF_ITS_PLAN = ("federation", "federation_digest", "log", "run", "round", "parent", "base_model", "agreed")
"""Fields that a commit must repeat from its plan."""


@dataclass(frozen=True)
class Committed:
    """A committed round and the digest that the next plan must name as its parent."""

    commit: Commit
    digest: Digest


NOT_OURS = (TrustError, ContractError, NotFoundError, TooLargeError)
"""What reading raises for an object that is not what belongs in its place."""


def is_ours(read: Callable[[], object]) -> bool:
    """Whether what lies in a place is what belongs there."""
    try:
        read()
    except NOT_OURS:
        return False
    return True


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Errors about what lies in a place say where that is, and who can repair it."""
    try:
        yield
    except (SignatureError, ContractError, TooLargeError) as error:
        raise type(error)(f"{error}. It lies at '{key}': ask whoever may write there to restore or remove it") from None


def read_document(store: ObjectStore, key: str, judge: Callable[[bytes], T]) -> T:
    """The result of `judge` for the document in this place. Raises NotFoundError, TooLargeError, and what `judge` raises."""
    with naming(key):
        return judged(lambda: store.get(key, max_bytes=MAX_DOCUMENT_BYTES), judge, f"'{key}'")


def newest(numbers: Collection[int], first: int, ours: Callable[[int], bool]) -> int | None:
    """The last of the objects with these numbers in their names; None: there is none.

    They are written one after the other. So an object behind a gap counts only if it is `ours`: then those before it were
    removed, which its reader notices. If it is not ours, somebody else put it there, and it is ignored.
    """
    end = first
    while end in numbers:
        end += 1
    last = next((number for number in sorted(numbers, reverse=True) if number > end and ours(number)), end - 1)
    while ours(last + 1):           # a list may be late, or leave something out
        last += 1
    return last if last >= first else None


def last_round(store: ObjectStore, run: str, coordinator: str, seen: int | None = None) -> int | None:
    """The number of the last committed round; None if the run has not begun.

    seen: a round that the caller has seen committed. If its commit is still there, the store is asked for those after it, one
    by one; otherwise for a list of all, which takes longer with every round.
    """
    if seen is not None and _is_committed(store, run, seen, coordinator):
        while _is_committed(store, run, seen + 1, coordinator):
            seen += 1
        return seen
    return last_round_of(store.list(layout.rounds(run)), store, run, coordinator)


def _is_committed(store: ObjectStore, run: str, number: int, coordinator: str) -> bool:
    return is_ours(lambda: read_commit(store, run, number, coordinator))


def last_round_of(keys: Iterable[str], store: ObjectStore, run: str, coordinator: str) -> int | None:
    """The same, for a caller that has the store's keys already."""
    found = {place[1] for key in keys if (place := layout.parse_commit(key)) is not None}
    return newest(found, 0, lambda number: _is_committed(store, run, number, coordinator))


def read_commit(store: ObjectStore, run: str, number: int, coordinator: str) -> Committed:
    """One committed round. Raises NotFoundError; SignatureError; ChainError if it is the commit of another round."""
    key, source = layout.commit(run, number), f"commit of round {number} of run '{run}'"

    def judge(document: bytes) -> Committed:
        found = proposed(store, document, run, number, coordinator, source)
        _check_majority(store, found, coordinator, source)
        return found

    return read_document(store, key, judge)


def proposed(store: ObjectStore, document: bytes, run: str, number: int, coordinator: str, source: str) -> Committed:
    """A commit by one whose turn it may be. With several coordinators it counts once a majority of them has signed it."""
    commit = in_turn(store, document, Commit, coordinator, source)
    if (commit.run, commit.round) != (run, number):
        raise ChainError(f"{source}: lies under this name but is of round {commit.round} of run '{commit.run}'")
    return Committed(commit, digest(document))


InTurn = TypeVar("InTurn", Commit, Plan, Checkpoint)


def in_turn(store: ObjectStore, document: bytes, kind: type[InTurn], coordinator: str, source: str) -> InTurn:
    """Read what the coordinator must have signed; or, where the federation file that the document names has several, one of
    these.
    """
    key = envelope(document, source).key
    try:
        body = unseal(document, kind, key, source)
        several = {one.key for one in members_of(store, body, coordinator, source).coordinators}
    except NOT_OURS:                    # no document, or of a log that is not there: whoever reads the log says more
        several = set()
    if not several:
        return unseal(document, kind, coordinator, source)
    if key in several:
        return body
    raise SignatureError(f"{source}: signed by none of the {len(several)} coordinators that the federation file names; ask "
                         "who changed it")


def members_of(store: ObjectStore, body: Commit | Plan | Checkpoint, coordinator: str, source: str) -> Federation:
    """The federation file that a document names by the log. Raises ChainError if the log does not have it."""
    from infra.federation_log import read_up_to

    return read_up_to(store, coordinator, body.log, source)[-1].federation


def _check_majority(store: ObjectStore, found: Committed, coordinator: str, source: str) -> None:
    try:
        members = members_of(store, found.commit, coordinator, source)
    except NOT_OURS:                    # then the founder has signed it alone, of a log that is not there
        return
    signed = cosigners(store, found, members) if members.coordinators else ()
    if members.coordinators and len(signed) < members.majority:
        raise SignatureError(f"{source}: {len(signed)} of {len(members.coordinators)} coordinators signed it, "
                             f"{members.majority} must")


def cosigners(store: ObjectStore, found: Committed, members: Federation) -> tuple[Name, ...]:
    """The coordinators who have signed this commit. What else lies in the places of their signatures counts for nothing."""
    commit, names = found.commit, list[Name]()
    for one in members.coordinators:
        said = Cosignature(federation=commit.federation, run=commit.run, round=commit.round, commit=found.digest,
                           coordinator=one.name)
        with suppress(*NOT_OURS):
            key = layout.cosignature(commit.run, commit.round, found.digest, one.name)
            document = store.get(key, max_bytes=MAX_DOCUMENT_BYTES)
            if unseal(document, Cosignature, one.key, f"signature of coordinator '{one.name}'") == said:
                names.append(one.name)
    return tuple(names)


def read_finding(store: ObjectStore, run: str, number: int, attempt: int, purpose: Purpose, coordinator: str) -> Finding:
    """The result of one question. Raises NotFoundError; SignatureError; ChainError if it is the finding of another one."""
    source = f"finding {attempt} of round {number} of run '{run}' ({purpose})"

    def judge(document: bytes) -> Finding:
        finding = unseal(document, Finding, coordinator, source)
        if (finding.run, finding.round, finding.attempt) != (run, number, attempt):
            raise ChainError(f"{source}: lies under this name but is of attempt {finding.attempt} at round "
                             f"{finding.round} of run '{finding.run}'")
        return finding

    return read_document(store, layout.finding(run, number, attempt, purpose), judge)


def findings(store: ObjectStore, run: str, purpose: Purpose) -> Iterator[tuple[int, int]]:
    """Round and attempt of every finding of the run, in order."""
    found = (layout.parse_finding(key) for key in store.list(layout.questions(run, purpose)))
    return ((place[1], place[2]) for place in found if place is not None)


def read_plan_at(store: ObjectStore, run: str, number: int, attempt: int, purpose: Purpose,
                 coordinator: str) -> tuple[Plan, Digest]:
    """One of the plans for a round, and its digest. Raises NotFoundError; SignatureError; TrustError if it is for another."""
    return read_document(store, layout.plan(run, number, attempt, purpose), lambda document: (
        _plan(store, document, run, number, attempt, purpose, coordinator), digest(document)))


def read_plan(store: ObjectStore, said: Commit | Finding, coordinator: str, purpose: Purpose = "train") -> Plan:
    """The plan that a commit or a finding names, among the attempts at its question. Raises ChainError also if the plan asked
    for something else than was committed.
    """
    what = "commit" if isinstance(said, Commit) else "finding"
    source = f"plan of round {said.round} of run '{said.run}'"
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            document = read_document(store, layout.plan(said.run, said.round, attempt, purpose),
                                     lambda found: _checked(found, said.plan, source, what))
        except NotFoundError:
            break
        except (TooLargeError, TrustError):
            continue                    # no plan, or another one
        plan = _plan(store, document, said.run, said.round, attempt, purpose, coordinator)
        for name in _OF_ITS_PLAN if isinstance(said, Commit) else ():
            if getattr(said, name) != getattr(plan, name):
                raise ChainError(f"{source}: asks for something else than what was committed: {name}")
        return plan
    raise ChainError(f"{source}: the plan that the {what} names is not in the store")


def _plan(store: ObjectStore, document: bytes, run: str, number: int, attempt: int, purpose: Purpose, coordinator: str
          ) -> Plan:
    source = f"{purpose} plan of round {number} of run '{run}'"
    plan = (in_turn(store, document, Plan, coordinator, source) if purpose == "train"
            else unseal(document, Plan, coordinator, source))
    if (plan.run, plan.round, plan.attempt, plan.asks.kind) != (run, number, attempt, purpose):
        raise TrustError(f"{source}: lies under this name but is for round {plan.round} of run '{plan.run}'")
    return plan


def read_answer(store: ObjectStore, plan: Plan, committed: CommittedUpdate) -> Answer:
    """The answer of a site whose update our own commit names. The coordinator checked the site's signature before."""
    source = f"answer of site '{committed.site}' in round {plan.round}"
    key = layout.answer(committed.site, plan.run, plan.round, plan.attempt, plan.asks.kind)
    return parse(Answer, envelope(read_named(store, key, committed.answer, source, by="commit"), source).body, source)


def read_checkpoint(store: ObjectStore, commit: Commit, coordinator: str) -> Checkpoint:
    """The checkpoint of a round. Raises TrustError also if it describes another model than the commit."""
    source = f"checkpoint of round {commit.round} of run '{commit.run}'"
    key = layout.checkpoint(commit.run, commit.round, commit.checkpoint)
    document = read_named(store, key, commit.checkpoint, source, by="commit")
    checkpoint = in_turn(store, document, Checkpoint, coordinator, source)
    if checkpoint.model.sha256 != commit.model:
        raise TrustError(f"{source}: describes another model than its commit")
    if checkpoint.rest != commit.blob("rest"):
        raise TrustError(f"{source}: has other parts that do not travel than its commit")
    return checkpoint


def read_federation(store: ObjectStore, sha256: Digest, coordinator: str, source: str) -> Federation:
    """The federation file that an entry of the log, a plan or a commit names."""
    return unseal(read_named(store, layout.federation(sha256), sha256, source), Federation, coordinator, source)


def read_tensors(store: ObjectStore, sha256: Digest, schema: Schema, source: str, by: str = "history") -> Tensors:
    """A model, or a part of a round's state that everybody may read. Raises as `read_blob`."""
    return read_blob(store, layout.model(sha256), sha256, schema, source, by)


def read_blob(store: ObjectStore, key: str, sha256: Digest, schema: Schema, source: str, by: str = "history") -> Tensors:
    """A tensor file. Raises CodecError also if the bytes are not tensors of this schema."""
    return codec.decode(read_named(store, key, sha256, source, by=by, max_bytes=codec.size_bytes(schema)), schema, source)


def read_rest(store: ObjectStore, recipe: Recipe, parts: Parts, rest: Digest | None, run: str) -> Rest:
    """The part of a model that does not travel: the frozen tensors, and the first values of the private ones."""
    if rest is None:
        return NO_REST
    found = schemas(recipe, parts)
    return found.rest_of(read_tensors(store, rest, found.rest, f"rest of the model of run '{run}'"))


def read_named(store: ObjectStore, key: str, sha256: Digest, source: str, *, by: str = "history",
               max_bytes: int | None = MAX_DOCUMENT_BYTES) -> bytes:
    """The bytes under `key` whose digest is `sha256`.

    source, by: what they are and what names them, for the message. Raises TooLargeError if they are more than `max_bytes`.
    """
    def read(*, compare: bool) -> bytes:
        return there(lambda: store.get(key, max_bytes=max_bytes, compare=compare))

    try:
        if digest(body := read(compare=False)) == sha256:
            return body
        # The store's own digest tells whether these bytes lie there, or were altered on the way.
        return judged(lambda: read(compare=True), lambda body: _checked(body, sha256, source, by), source)
    except NotFoundError:
        raise ChainError(f"{source}: is not in the store") from None


def prove(store: ObjectStore, key: str, sha256: Digest, source: str) -> int:
    """Compare what lies under `key` with its digest, in blocks; returns its size in bytes."""
    if (info := store.head(key) or store.head(key)) is None:
        raise ChainError(f"{source}: is not in the store")

    def read() -> bytes:
        hasher = hashlib.sha256()
        for start in range(0, info.size_bytes, codec.CHUNK_BYTES):
            hasher.update(store.get_range(key, start, codec.CHUNK_BYTES))
        return hasher.digest()

    judged(read, lambda found: _check(found.hex(), sha256, source, "history"), source)
    return info.size_bytes


def _checked(body: bytes, sha256: Digest, source: str, by: str) -> bytes:
    _check(digest(body), sha256, source, by)
    return body


def _check(found: str, expected: str, source: str, by: str) -> None:
    if found != expected:
        raise TrustError(f"{source}: the stored bytes are not those that the {by} names; their digest is {found[:16]}…, "
                         f"expected {expected[:16]}…")
