"""Proof of a model's lineage from the object store alone: every signature, every hash, every link, back to round 0.

Trusts one thing: the coordinator's public key, which the auditor brings. Reads everything, writes nothing, and does not
need the Prefect server.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fedround import layout, sightings
from fedround.aggregation.verdict import Verdict
from fedround.errors import ChainError, ContractError, StoreDeniedError
from fedround.federation_log import Logged
from fedround.privacy.spec import Privacy, RecordPrivacy
from fedround.signing import MAX_DOCUMENT_BYTES, digest, unseal
from fedround.types import MAX_WINDOW, Commit, Federation, RoundPlan, Update
from infra import federation_log
from infra.stores import ObjectStore
from tasks import evidence
from tasks.history import last_round
from tasks.reputation import Past, exclusions, first_that_counts


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
    unseen: tuple[str, ...] = ()
    """Sites whose answers this credential may not read: a site sees its own, the coordinator and an auditor see all."""
    memory_unseen: bool = False
    """This credential may not read what the coordinator remembers of the sites: a site may not."""


def read_log(store: ObjectStore, coordinator: str) -> tuple[Logged, ...]:
    """The whole federation log, verified. Raises TrustError or ChainError for the first entry that does not hold."""
    return federation_log.read_log(store, coordinator, federation_log.length(store))


def verify_run(store: ObjectStore, run: str, coordinator: str, until: int | None = None) -> Iterator[RoundProof]:
    """Prove the rounds of a run in order, and the federation log first.

    coordinator: the public key that must have signed the history. until: the last round to prove; None: all.
    Raises TrustError or ChainError at the first thing that does not hold, ContractError if there is no such run.
    Not promised: that no rounds were taken away at the end. Compare the last commit with one that you saw before.
    """
    last = last_round(store, run)
    if last is None:
        raise ContractError(f"the store has no run '{run}'; check the name, the store and the credential")
    log, past = read_log(store, coordinator), deque[Past](maxlen=MAX_WINDOW)
    before: tuple[Commit, str] | None = None
    for number in range((last if until is None else until) + 1):
        source = f"round {number} of run '{run}'"
        document = evidence.read(store, layout.commit(run, number), f"commit of {source}")
        commit = unseal("commit", document, Commit, coordinator, f"commit of {source}")
        members = _members(commit, log, before, source)
        yield _prove(store, commit, document, coordinator, members, log[-1].federation, before, past)
        before = commit, digest(document)


def find_model(store: ObjectStore, sha256: str) -> tuple[str, int]:
    """The run and the round whose commit says that it made these bytes; `verify_run` proves it. Raises ContractError."""
    for key in store.list("runs/"):
        if (found := re.fullmatch(r"runs/([a-z0-9-]+)/rounds/(\d{5})/commit\.json", key)) is not None:
            try:
                body = json.loads(store.get(key, max_bytes=MAX_DOCUMENT_BYTES))["body"]
            except (ValueError, KeyError, TypeError):
                continue
            if body.get("model") == sha256:
                return found[1], int(found[2])
    raise ContractError(f"no round of any run in the store made the model with SHA-256 {sha256}: it was altered, or made "
                        "elsewhere")


def _members(commit: Commit, log: Sequence[Logged], before: tuple[Commit, str] | None, source: str) -> Federation:
    """The federation file that held, by the log; and the commit's place in chain and log."""
    after = (None, None, -1) if before is None else (before[1], before[0].model, before[0].round)
    if (commit.parent, commit.base_model, commit.round - 1) != after:
        raise ChainError(f"commit of {source}: does not continue round {after[2]}")
    if commit.log.number > len(log) or log[commit.log.number - 1].digest != commit.log.digest:
        raise ChainError(f"commit of {source}: names an entry {commit.log.number} that is not in the federation log")
    if before is not None and commit.log.number < before[0].log.number:
        raise ChainError(f"commit of {source}: names an older entry of the federation log than the round before it")
    logged = log[commit.log.number - 1]
    if logged.entry.federation_digest != commit.federation_digest:
        raise ChainError(f"commit of {source}: names another federation file than the log does")
    return logged.federation


def _prove(store: ObjectStore, commit: Commit, document: bytes, key: str, members: Federation, newest: Federation,
           before: tuple[Commit, str] | None, past: deque[Past]) -> RoundProof:
    source = f"round {commit.round} of run '{commit.run}'"
    evidence.model(store, commit, key, source)
    signatures, hashes = 2, 3       # commit and checkpoint; commit, checkpoint and model
    if commit.optimizer_state is not None:
        evidence.blob(store, commit.optimizer_state, f"optimizer state of {source}")
        hashes += 1
    remembered = evidence.memory(store, commit)
    proof = {"round": commit.round, "commit": digest(document), "model": commit.model, "log": commit.log.number,
             "memory_unseen": remembered is None}
    if before is None:
        return RoundProof(**proof, updates=(), refusals=(), signatures=signatures, hashes=hashes + (remembered or 0))
    plan = evidence.plan(store, commit, key, source)
    _check_agreed(plan, members, source)
    sighted = sightings.check(commit, members, f"commit of {source}")
    answers, unseen = _answers(store, commit, plan, members)
    _check_everybody(commit, plan, members, source)
    _check_ledgers(commit, before[0], members, answers, source)
    excluded = _check_cohort(plan, members, past, source)
    past.append(Past(plan, commit))
    read = len(commit.updates) + len(commit.refusals) - len(unseen)
    used = {update.site: update.verdict is Verdict.USED for update in commit.updates}
    return RoundProof(
        **proof, updates=tuple(site for site, so in used.items() if so), refusals=tuple(r.site for r in commit.refusals),
        signatures=signatures + 1 + sighted + read, hashes=hashes + 1 + read + len(answers) + (remembered or 0),
        aggregation=str(plan.aggregation), privacy=plan.privacy,
        epsilons={site: answer.epsilon for site, answer in answers.items()},
        left_out=tuple(site for site, so in used.items() if not so), excluded=excluded, unseen=unseen,
        revoked_since=tuple(site for site in used if members.site(site).key in newest.revoked))


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


def _check_agreed(plan: RoundPlan, members: Federation, source: str) -> None:
    """The plan asks for what the federation file says: its recipe, contract, training, privacy and evaluation."""
    asked, agreed = plan.privacy, members.privacy
    if isinstance(agreed, RecordPrivacy) and agreed.adaptive is not None and isinstance(asked, RecordPrivacy):
        agreed = agreed.model_copy(update={"clip_norm": asked.clip_norm})         # it follows the sites' gradients
    if asked != agreed or any(getattr(plan, name) != getattr(members, name) for name in (
            "recipe", "recipe_digest", "contract_digest", "training", "evaluation", "optimizer")):
        raise ChainError(f"plan of {source}: asks for something else than the federation file")


def _check_ledgers(commit: Commit, before: Commit, members: Federation, answers: dict[str, Update], source: str) -> None:
    """Every ledger grows, and the commit says of it what the site said."""
    known = {ledger.site: ledger for ledger in before.ledgers}
    for ledger in commit.ledgers:
        earlier = known.pop(ledger.site, None)
        if ledger.site not in {update.site for update in commit.updates}:
            if ledger != earlier:
                raise ChainError(f"commit of {source}: changes the ledger of '{ledger.site}', which sent no update")
            continue
        answer = answers.get(ledger.site)
        if ledger.key != members.site(ledger.site).key or (
                answer is not None and (answer.charges, answer.ledger_head) != (ledger.charges, ledger.head)):
            raise ChainError(f"commit of {source}: says of the ledger of '{ledger.site}' what the site did not say")
        if earlier is not None and earlier.key == ledger.key and ledger.charges <= earlier.charges:
            raise ChainError(f"commit of {source}: the ledger of '{ledger.site}' has not grown: it was rolled back")
    if known or {update.site for update in commit.updates} - {ledger.site for ledger in commit.ledgers}:
        raise ChainError(f"commit of {source}: leaves out the ledger of a site")


def _check_everybody(commit: Commit, plan: RoundPlan, federation: Federation, source: str) -> None:
    """Nobody is left out, counted twice or given another weight than was agreed, and the quorum was met."""
    named = [entry.site for entry in (*commit.updates, *commit.refusals, *commit.rejected)] + list(commit.missing)
    if sorted(named) != sorted(plan.cohort):
        raise ChainError(f"commit of {source}: does not name every site of the cohort once")
    used = sum(update.verdict is Verdict.USED for update in commit.updates)
    if used < plan.quorum:
        raise ChainError(f"commit of {source}: {used} updates, its plan asks for a quorum of {plan.quorum}")
    for update in commit.updates:
        if update.weight != federation.site(update.site).weight:
            raise ChainError(f"commit of {source}: gives '{update.site}' another weight than the federation file")


def _check_cohort(plan: RoundPlan, federation: Federation, past: Sequence[Past], source: str) -> tuple[str, ...]:
    """Every member was asked, those excepted whom the agreed policy excludes; returns these."""
    asked_with = federation.model_copy(update={"quorum": plan.quorum})
    since = first_that_counts(federation, plan.round)
    due = exclusions(asked_with, plan.round, [round_ for round_ in past if round_.plan.round >= since])
    if plan.excluded != due:
        raise ChainError(f"plan of {source}: excludes others than the agreed policy does")
    excluded = {exclusion.site for exclusion in due}
    if set(plan.cohort) != {site.name for site in federation.sites} - excluded:
        raise ChainError(f"plan of {source}: does not ask every member that the agreed policy leaves in")
    return tuple(sorted(excluded))
