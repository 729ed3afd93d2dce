"""Proof of a model's lineage from the object store alone: every signature, every hash, every link, back to round 0.

Trusts one thing: the coordinator's public key, which the auditor brings. Reads everything, writes nothing there, and does not
need the Prefect server. On a bench (`tasks.recompute`) every model is also computed again from the sites' updates.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fedround import layout, sightings
from fedround.aggregation.verdict import Verdict
from fedround.agreement import MAX_WINDOW, Federation
from fedround.errors import ChainError, ContractError, NotFoundError, StoreDeniedError
from fedround.federation_log import Logged
from fedround.privacy.spec import Privacy
from fedround.signing import MAX_DOCUMENT_BYTES
from fedround.types import Commit, RoundPlan, Update
from infra import federation_log
from infra.history import Committed, last_round, read_commit, read_plan
from infra.stores import ObjectStore
from tasks import evidence
from tasks.agreed import Proven, check_agreed, check_cohort, check_everybody, check_ledgers
from tasks.plan import Planned
from tasks.recompute import Bench, recompute
from tasks.reputation import Past


@dataclass(frozen=True)
class RoundProof:
    """What was proven of one round."""

    round: int
    commit: str
    model: str
    log: int
    """The entry of the federation log that held."""
    updates: tuple[str, ...]
    refusals: tuple[str, ...]
    signatures: int
    hashes: int
    aggregation: str = ""
    privacy: Privacy | None = None
    """What the plan asked of every site."""
    epsilons: dict[str, float | None] = field(default_factory=dict)
    """What each site said it had spent on the run, as far as its answers may be read; None: without privacy."""
    left_out: tuple[str, ...] = ()
    """Sites whose updates the aggregation left out: they are proven as the others are."""
    excluded: tuple[str, ...] = ()
    """Members that were not asked, as the agreed policy has it."""
    revoked_since: tuple[str, ...] = ()
    """Sites whose key of then was revoked later. It was good then; whoever revoked it may know from when on it was not."""
    recomputed: bool = False
    """Whether the model was computed again from the sites' stored updates, and is the same, byte for byte."""
    not_recomputed: str = ""
    """Why it was not, where it was asked for."""
    unseen: tuple[str, ...] = ()
    """Sites whose answers this credential may not read: a site sees its own, the coordinator and an auditor see all."""
    memory_unseen: bool = False
    """This credential may not read what the coordinator remembers of the sites: a site may not."""


def read_log(store: ObjectStore, coordinator: str) -> tuple[Logged, ...]:
    """The whole federation log, verified. Raises TrustError or ChainError for the first entry that does not hold."""
    return federation_log.read_log(store, coordinator, federation_log.length(store))


def verify_run(store: ObjectStore, run: str, coordinator: str, until: int | None = None,
               bench: Bench | None = None) -> Iterator[RoundProof]:
    """Prove the rounds of a run in order, and the federation log first.

    coordinator: the public key that must have signed the history. until: the last round to prove; None: all. bench: where to
    compute every round again; None: it is not done.
    Raises TrustError or ChainError at the first thing that does not hold, ContractError if there is no such run.
    Not promised: that no rounds were taken away at the end. Compare the last commit with one that you saw before.
    """
    last = last_round(store, run)
    if last is None:
        raise ContractError(f"the store has no run '{run}'; check the name, the store and the credential")
    log, past = read_log(store, coordinator), deque[Past](maxlen=MAX_WINDOW)
    before: Proven | None = None
    for number in range((last if until is None else until) + 1):
        source = f"round {number} of run '{run}'"
        try:
            head = read_commit(store, run, number, coordinator)
        except NotFoundError:
            raise ChainError(f"commit of {source}: is not in the store") from None
        members = _members(head.commit, log, before, source)
        proof, before = _prove(store, head, coordinator, members, log, before, past, bench)
        yield proof


def find_model(store: ObjectStore, sha256: str) -> tuple[str, int]:
    """The run and the round whose commit says that it made these bytes; `verify_run` proves it. Raises ContractError."""
    for key in store.list(layout.RUNS):
        if (found := layout.parse_commit(key)) is not None:
            try:
                body = json.loads(store.get(key, max_bytes=MAX_DOCUMENT_BYTES))["body"]
            except (ValueError, KeyError, TypeError):
                continue
            if body.get("model") == sha256:
                return found
    raise ContractError(f"no round of any run in the store made the model with SHA-256 {sha256}: it was altered, or made "
                        "elsewhere")


def _members(commit: Commit, log: Sequence[Logged], before: Proven | None, source: str) -> Federation:
    """The federation file that held, by the log; and the commit's place in chain and log."""
    last = None if before is None else before.committed
    after = (None, None, -1) if last is None else (last.digest, last.commit.model, last.commit.round)
    if (commit.parent, commit.base_model, commit.round - 1) != after:
        raise ChainError(f"commit of {source}: does not continue round {after[2]}")
    if commit.log.number > len(log) or log[commit.log.number - 1].digest != commit.log.digest:
        raise ChainError(f"commit of {source}: names an entry {commit.log.number} that is not in the federation log")
    if last is not None and commit.log.number < last.commit.log.number:
        raise ChainError(f"commit of {source}: names an older entry of the federation log than the round before it")
    logged = log[commit.log.number - 1]
    if logged.entry.federation_digest != commit.federation_digest:
        raise ChainError(f"commit of {source}: names another federation file than the log does")
    return logged.federation


def _prove(store: ObjectStore, head: Committed, key: str, members: Federation, log: Sequence[Logged], before: Proven | None,
           past: deque[Past], bench: Bench | None) -> tuple[RoundProof, Proven]:
    commit = head.commit
    source = f"round {commit.round} of run '{commit.run}'"
    evidence.model(store, commit, key, source)
    signatures, hashes = 2, 3       # commit and checkpoint; commit, checkpoint and model
    for what, blob in (("optimizer state", commit.optimizer_state), ("control variate", commit.control),
                       ("rest of the model", commit.rest if before is None else None)):     # the same in every round
        if blob is not None:
            evidence.blob(store, blob, f"{what} of {source}")
            hashes += 1
    if before is None and members.start is not None:
        evidence.start(store, commit, members.start, source)
        hashes += 1
    remembered = evidence.memory(store, commit)
    proof = {"round": commit.round, "commit": head.digest, "model": commit.model, "log": commit.log.number,
             "memory_unseen": remembered is None}
    if before is None:
        return RoundProof(**proof, updates=(), refusals=(), signatures=signatures,
                          hashes=hashes + (remembered or 0)), Proven(head)
    plan = read_plan(store, commit, key)
    check_agreed(plan, members, before, source)
    sighted = sightings.check(commit, members, f"commit of {source}")
    answers, unseen = _answers(store, commit, plan, members)
    check_everybody(commit, plan, members, source)
    check_ledgers(commit, before.committed.commit, members, log[:commit.log.number], answers, source)
    excluded = check_cohort(plan, members, past, source)
    why_not = _recompute(bench, Planned(plan, commit.plan or "", before.committed), commit, members, answers)
    past.append(Past(plan, commit))
    read = len(commit.updates) + len(commit.refusals) - len(unseen)
    used = {update.site: update.verdict is Verdict.USED for update in commit.updates}
    return RoundProof(
        **proof, updates=tuple(site for site, so in used.items() if so), refusals=tuple(r.site for r in commit.refusals),
        signatures=signatures + 1 + sighted + read, hashes=hashes + 1 + read + len(answers) + (remembered or 0),
        aggregation=str(plan.aggregation), privacy=plan.privacy,
        epsilons={site: answer.epsilon for site, answer in answers.items()},
        left_out=tuple(site for site, so in used.items() if not so), excluded=excluded, unseen=unseen,
        recomputed=why_not == "" and bench is not None, not_recomputed=why_not,
        revoked_since=tuple(site for site in used if members.site(site).key in log[-1].federation.revoked),
    ), Proven(head, plan, answers)


def _recompute(bench: Bench | None, planned: Planned, commit: Commit, members: Federation,
               answers: Mapping[str, Update]) -> str:
    """Why the round was not computed again, where that was asked for; nothing if it was, and is the same."""
    if bench is None:
        return ""
    if len(answers) < len(commit.updates):
        return "this credential may not read every update"
    try:
        return recompute(bench, planned, commit, members, answers)
    except StoreDeniedError:
        return "this credential may not read what the coordinator remembers of the sites"


def _answers(store: ObjectStore, commit: Commit, plan: RoundPlan,
             members: Federation) -> tuple[dict[str, Update], tuple[str, ...]]:
    """The updates that the commit names, proven, and the sites whose answers may not be read."""
    updates, unseen = dict[str, Update](), list[str]()
    for committed in (*commit.updates, *commit.refusals):
        try:
            if committed in commit.refusals:
                evidence.refusal(store, members, plan, commit.plan or "", committed)
            else:
                updates[committed.site] = evidence.update(store, members, plan, commit.plan or "", committed)
        except StoreDeniedError:
            unseen.append(committed.site)
    return updates, tuple(unseen)
