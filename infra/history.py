"""The history of a federation's runs in the store: what is signed for a place, and what a signed document names.

The coordinator's steps, an auditor's proof and a site's process read a history with the same functions, by the rules of
`infra.documents`. `read_commit`, `read_plan_at` and `read_finding` read places, and what is there must be signed for that
place. `coordinator` is the public key that must have signed.

Nothing here says that one round continues another: that is checked by the caller, which reads both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from fedround import layout
from fedround.errors import ChainError, NotFoundError, SignatureError, TooLargeError, TrustError
from fedround.federation import Federation
from fedround.learning.parts import NO_REST, Rest
from fedround.learning.recipe import Recipe, schemas
from fedround.learning.spec import Parts
from fedround.records import Answer, Checkpoint, Commit, CommittedUpdate, Cosignature, Finding, Plan
from fedround.signing import MAX_DOCUMENT_BYTES, digest, envelope, unseal
from fedround.values import MAX_ATTEMPTS, Digest, Name, Purpose, parse
from infra.documents import NOT_OURS, compared, is_ours, newest, read_document, read_named, read_tensors
from infra.federation_log import read_up_to
from infra.stores import ObjectStore

_OF_ITS_PLAN = ("federation", "federation_digest", "log", "run", "round", "parent", "base_model", "agreed")
"""Fields that a commit must repeat from its plan."""


@dataclass(frozen=True)
class Committed:
    """A committed round and the digest that the next plan must name as its parent."""

    commit: Commit
    digest: Digest


def last_round(store: ObjectStore, run: str, coordinator: str, seen: Committed | None = None) -> int | None:
    """The number of the last committed round; None if the run has not begun.

    seen: a round that the caller has seen committed. If these very bytes are still there, they are not verified again, and
    the store is asked for the rounds after it, one by one; otherwise for a list of all, which takes longer with every round.
    """
    if seen is not None and _lies_there(store, seen):
        number = seen.commit.round
        while _is_committed(store, run, number + 1, coordinator):
            number += 1
        return number
    return last_round_of(store.list(layout.rounds(run)), store, run, coordinator)


def _lies_there(store: ObjectStore, seen: Committed) -> bool:
    key = layout.commit(seen.commit.run, seen.commit.round)
    try:
        return digest(store.get(key, max_bytes=MAX_DOCUMENT_BYTES)) == seen.digest
    except NOT_OURS:
        return False


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
    missing = f"{source}: the plan that the {what} names is not in the store"
    if (named := said.plan) is None:    # nobody was asked for round 0
        raise ChainError(missing)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            document = read_document(store, layout.plan(said.run, said.round, attempt, purpose),
                                     lambda found: compared(found, named, source, what))
        except NotFoundError:
            break
        except (TooLargeError, TrustError):
            continue                    # no plan, or another one
        plan = _plan(store, document, said.run, said.round, attempt, purpose, coordinator)
        for name in _OF_ITS_PLAN if isinstance(said, Commit) else ():
            if getattr(said, name) != getattr(plan, name):
                raise ChainError(f"{source}: asks for something else than what was committed: {name}")
        return plan
    raise ChainError(missing)


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


def read_rest(store: ObjectStore, recipe: Recipe, parts: Parts, rest: Digest | None, run: str) -> Rest:
    """The part of a model that does not travel: the frozen tensors, and the first values of the private ones."""
    if rest is None:
        return NO_REST
    found = schemas(recipe, parts)
    return found.rest_of(read_tensors(store, rest, found.rest, f"rest of the model of run '{run}'"))
