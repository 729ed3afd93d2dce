"""Proof of a model's lineage from the object store alone: every signature, every hash, every link, back to round 0.

What was found on the way is proven too. One thing is trusted: the coordinator's public key, which the auditor brings. Reads
everything, writes nothing there, and does not need the Prefect server. On a bench (`tasks.recompute`) every model is also
computed again from the sites' updates.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar, get_args

from fedround import layout, sightings
from fedround.aggregation.staleness import MAX_AGE
from fedround.aggregation.verdict import Verdict
from fedround.contribution.said import Contribution
from fedround.errors import ChainError, ContractError, LostError, NotFoundError, StoreDeniedError
from fedround.federation import Federation
from fedround.federation_log import Logged
from fedround.records import Answer, Checkpoint, Commit, CommittedRefusal, CommittedUpdate, Join, LogHead, Plan, Summed, Told
from fedround.standing import MAX_WINDOW
from fedround.values import Charged, Purpose
from infra import federation_log
from infra.documents import NOT_OURS
from infra.history import Committed, findings, last_round, read_commit, read_finding, read_plan
from infra.stores import ObjectStore
from tasks import contribution, evidence
from tasks.agreed import Proven, check_agreed, check_cohort, check_commit, check_everybody, check_ledgers, check_told
from tasks.ask import totals_of
from tasks.contribution import Public
from tasks.past import Past
from tasks.plan import Planned, in_words, planned_of
from tasks.proofs import FindingProof, RoundProof
from tasks.prove_regions import prove_regions
from tasks.prove_sum import SumProof, prove_sum
from tasks.recompute import Bench, recompute

T = TypeVar("T", CommittedUpdate, CommittedRefusal, Told)
R = TypeVar("R")


def read_log(store: ObjectStore, coordinator: str) -> tuple[Logged, ...]:
    """The whole federation log, verified. Raises TrustError or ChainError for the first entry that does not hold."""
    return federation_log.read_log(store, coordinator, federation_log.length(store, coordinator))


def verify_run(store: ObjectStore, run: str, coordinator: str, until: int | None = None,
               bench: Bench | None = None, public: Public | None = None) -> Iterator[RoundProof]:
    """Prove the rounds of a run in order, with what was asked about each, and the federation log first.

    coordinator: the public key that must have signed the history.
    until: the last round to prove; None: all.
    bench: where to compute every round again; None: no round is. public: on what contributions are judged again.
    Raises TrustError or ChainError at the first thing that does not hold, ContractError if there is no such run. A member may
    alter what it signed at any time; this stops the proof of nothing else. So LostError, which names every such answer, is
    raised after the last proof.
    Not promised: that no rounds, and no findings, were removed at the end. Compare the last commit with one that you saw
    before.
    """
    last = last_round(store, run, coordinator)
    if last is None:
        raise ContractError(f"the store has no run '{run}'; check the name, the store and the credential")
    trial = Trial(store, coordinator, read_log(store, coordinator), bench, public)
    asked, before = _asked(store, run), None
    for number in range((last if until is None else until) + 1):
        try:
            head = read_commit(store, run, number, coordinator)
        except NotFoundError:
            raise ChainError(f"commit of round {number} of run '{run}': is not in the store") from None
        proof, before = trial.prove(head, before)
        told = tuple(trial.prove_finding(purpose, attempt, before) for purpose, attempt in asked.get(number, ()))
        yield replace(proof, findings=told)
    if trial.lost:
        raise LostError("; ".join(trial.lost))


def find_model(store: ObjectStore, sha256: str, coordinator: str) -> tuple[str, int]:
    """The run and the round whose commit says that it made these bytes; `verify_run` proves it. Raises ContractError."""
    for key in store.list(layout.RUNS):
        if (found := layout.parse_commit(key)) is not None:
            try:
                commit = read_commit(store, *found, coordinator).commit
            except NOT_OURS:
                continue
            if commit.model == sha256:
                return found
    raise ContractError(f"no round of any run in the store made the model with SHA-256 {sha256}: it was altered, or made "
                        "elsewhere")


_FOUND: tuple[Purpose, ...] = tuple(purpose for purpose in get_args(Charged) if purpose != "train")
"""Questions that may be charged, and whose answers end in a finding and in no commit."""


def _asked(store: ObjectStore, run: str) -> dict[int, list[tuple[Purpose, int]]]:
    """Purposes and attempts of the findings, by the round that they are about."""
    found = dict[int, list[tuple[Purpose, int]]]()
    for purpose in _FOUND:
        for number, attempt in findings(store, run, purpose):
            found.setdefault(number, []).append((purpose, attempt))
    return found


@dataclass
class _Read:
    """What one round's sites said, as far as it can be read."""

    lost: list[str]
    """What is altered or gone, in words: added to what other rounds lost."""
    unseen: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    """Sites."""
    proven: int = 0

    def all(self, named: Sequence[T], read: Callable[[T], R]) -> dict[str, R]:
        """What the history names, proven, by site, without what may not be read and what is altered or gone."""
        found = {}
        for told in named:
            try:
                found[told.site] = read(told)
                self.proven += 1
            except StoreDeniedError:
                self.unseen.append(told.site)
            except LostError as error:
                self.gone.append(told.site)
                self.lost.append(str(error))
        return found


@dataclass(frozen=True)
class Trial:
    """One run's history, held against the federation log round by round."""

    store: ObjectStore
    coordinator: str
    log: tuple[Logged, ...]
    bench: Bench | None
    public: Public | None
    past: deque[Past] = field(default_factory=lambda: deque(maxlen=max(MAX_WINDOW, 2 * MAX_AGE)))
    """The last rounds that were proven."""
    lost: list[str] = field(default_factory=list)
    """What members signed and is altered or gone, in words."""

    def _made(self, head: Committed, before: Proven | None, source: str) -> tuple[RoundProof, Federation, Checkpoint]:
        """What is proven of a commit by itself: it continues `before`, and its model, state and memory are what it names."""
        commit, store = head.commit, self.store
        last = None if before is None else before.committed
        after = (None, None, -1) if last is None else (last.digest, last.commit.model, last.commit.round)
        if (commit.parent, commit.base_model, commit.round - 1) != after:
            raise ChainError(f"commit of {source}: does not continue round {after[2]}")
        members = self._members(commit, None if last is None else last.commit.log, f"commit of {source}")
        checkpoint = evidence.model(store, commit, self.coordinator, source)
        part = checkpoint.partition
        if before is not None and part != before.partition:
            raise ChainError(f"checkpoint of {source}: names other rows that its run trains on than the round before it")
        if before is not None and checkpoint.choice != before.choice:
            raise ChainError(f"checkpoint of {source}: says that something else was chosen for its run than the round before")
        remembered = evidence.memory(store, commit)
        # signatures: commit and checkpoint; hashes: commit, checkpoint and model
        proof = RoundProof(
            round=commit.round, commit=head.digest, model=commit.model, log=commit.log.number, updates=(), refusals=(),
            signatures=2, hashes=3 + evidence.state(store, commit, source) + (remembered or 0),
            memory_unseen=remembered is None, partition="" if part is None else part.name,
            chosen="" if checkpoint.choice is None else checkpoint.choice.in_words,
            in_ledger="" if part is None else part.in_ledger, after=checkpoint.after)
        return proof, members, checkpoint

    def _begun(self, head: Committed, proof: RoundProof, members: Federation, checkpoint: Checkpoint,
               source: str) -> RoundProof:
        """The proof of a run's first commit, with that of what it begins with."""
        if checkpoint.after is not None:
            evidence.after(self.store, head.commit, checkpoint.after, self.coordinator, source)
            return replace(proof, signatures=3, hashes=proof.hashes + 1)
        if members.start is None:
            return proof
        evidence.start(self.store, head.commit, members.start, source)
        return replace(proof, hashes=proof.hashes + 1)

    def prove(self, head: Committed, before: Proven | None) -> tuple[RoundProof, Proven]:
        """One committed round after `before`; None: the first."""
        commit, store = head.commit, self.store
        source = f"round {commit.round} of run '{commit.run}'"
        proof, members, checkpoint = self._made(head, before, source)
        if before is None:
            return (self._begun(head, proof, members, checkpoint, source),
                    Proven(head, partition=checkpoint.partition, choice=checkpoint.choice))
        plan = read_plan(store, commit, self.coordinator)
        check_commit(commit, plan, members, source)
        check_agreed(plan, members, before, self.past, source)
        excluded = check_cohort(plan, members, self.past, source)
        sighted = self._sighted(commit, members, f"commit of {source}")
        planned = planned_of(self.store, self.coordinator, plan, commit.plan or "", before.committed)
        read = _Read(self.lost)
        answers = read.all(commit.updates, lambda told: evidence.update(self.store, members, planned.of(told.site), told))
        read.all(commit.refusals, lambda told: evidence.refusal(self.store, members, planned.of(told.site), told))
        check_everybody(commit, plan, source)
        check_ledgers(commit, before.committed.commit, members, self.log[:commit.log.number], answers, source)
        said = contribution.standing(store, head, self.coordinator)
        check_told(planned, commit, members, answers, source)
        regions = prove_regions(store, planned, commit)
        if regions is not None:
            self.lost.extend(f"region '{name}', {source}: the partial sum that the commit names is gone, or altered"
                             for name in regions.gone)
        why_not = self._recompute(planned, head, members, answers, read.gone != [], said)
        self.past.append(Past(plan, commit))
        used = {update.site: update.verdict is Verdict.USED for update in commit.updates}
        masked = self._sum(planned, members, commit.sum, [Told(site=one.site, answer=one.answer) for one in commit.updates],
                           answers)
        if (masked is None and commit.totals != ()) or (
                masked is not None and masked.sum is not None and commit.totals != masked.sum.read.totals):
            raise ChainError(f"commit of {source}: its totals are not what the sites' answers add up to")
        return replace(
            proof, contribution=self._of_contribution(said, plan, why_not),
            updates=tuple(site for site, so in used.items() if so), refusals=tuple(r.site for r in commit.refusals),
            revealed=() if masked is None else masked.revealed, shared_by=plan.agreed.shared_by,
            regions={} if regions is None else {**dict.fromkeys(regions.said, ""), **regions.left_out},
            signatures=(proof.signatures + 1 + sighted + read.proven + (said is not None)
                        + (0 if regions is None else regions.signatures)
                        + (0 if masked is None else masked.signatures)),
            hashes=proof.hashes + 1 + read.proven + len(answers),
            aggregation=plan.agreed.aggregation_in_words, privacy=plan.agreed.privacy,
            epsilons={site: answer.epsilon for site, answer in answers.items()},
            alone={site: answer.epsilon_alone for site, answer in answers.items()},
            left_out=tuple(site for site, so in used.items() if not so), excluded=excluded,
            unseen=tuple(read.unseen), lost=(*read.gone, *(() if masked is None else masked.gone)),
            recomputed=why_not == "" and self.bench is not None, not_recomputed=why_not,
            revoked_since=tuple(site for site in used if members.site(site).key in self.log[-1].federation.revoked),
        ), Proven(head, plan.task, checkpoint.partition, checkpoint.choice, answers)

    def prove_finding(self, purpose: Purpose, attempt: int, about: Proven) -> FindingProof:
        """Prove the result of a question about the model of a proven round."""
        head = about.committed.commit
        finding = read_finding(self.store, head.run, head.round, attempt, purpose, self.coordinator)
        plan = read_plan(self.store, finding, self.coordinator, purpose)
        source = in_words(plan)
        if (finding.federation, finding.attempt) != (plan.federation, plan.attempt):
            raise ChainError(f"finding of {source}: is of another question than its plan's")
        members = self._members(plan, head.log, f"plan of {source}")
        check_agreed(plan, members, about, self.past, source)
        excluded = check_cohort(plan, members, self.past, source)
        check_everybody(finding, plan, source)
        read = _Read(self.lost)
        answers = read.all(finding.answers, lambda told: evidence.answer(self.store, members, plan, finding.plan, told))
        whole = len(answers) == len(finding.answers)
        planned = Planned(plan, finding.plan, about.committed)
        read.all(finding.refusals, lambda told: evidence.refusal(self.store, members, planned, told))
        sent = _Read(self.lost)
        if isinstance(plan.asks, Join):         # what it says, only its reader can open; that nobody exchanged it is proven
            sent.all([told for told in finding.answers if told.site in answers],
                     lambda told: evidence.file(self.store, plan, answers[told.site]))
        masked = self._sum(planned, members, finding.sum, finding.answers, answers)
        if masked is not None:
            totals = None if masked.sum is None else masked.sum.read.totals
        else:
            totals = totals_of([answers[told.site].releases for told in finding.answers]) if whole else None
        if totals is not None and finding.totals != totals:
            raise ChainError(f"finding of {source}: its totals are not what the sites' answers add up to")
        if tuple(total.statistic for total in finding.totals) != plan.asks.statistics:
            raise ChainError(f"finding of {source}: its totals are of other statistics than its plan asks for")
        # signatures: finding, plan, what sites said, and their sightings; hashes: the plan and what sites said
        return FindingProof(
            asked=purpose, attempt=finding.attempt, answers=tuple(told.site for told in finding.answers),
            refusals=tuple(no.site for no in finding.refusals), totals=finding.totals,
            signatures=2 + read.proven + len(answers) + (0 if masked is None else masked.signatures),
            hashes=1 + read.proven + sent.proven,
            unseen=tuple(read.unseen), lost=(*read.gone, *sent.gone, *(() if masked is None else masked.gone)),
            excluded=excluded, revealed=() if masked is None else masked.revealed)

    def _sum(self, planned: Planned, members: Federation, said: Summed | None, told: Sequence[Told],
             answers: Mapping[str, Answer]) -> SumProof | None:
        """How a sum of masked answers was read; None: they are not masked."""
        if planned.plan.asks.slot is not None:
            proof = prove_sum(self.store, self.coordinator, members, planned, said, told, answers)
            self.lost.extend(proof.gone.values())
            return proof
        if said is not None:
            raise ChainError(f"{planned.in_words}: says how masks came off a sum, and its plan has nothing masked")
        return None

    def _sighted(self, commit: Commit, members: Federation, source: str) -> int:
        """How many sightings the commit holds; all of them hold, and enough members have sighted what it rests on."""
        known = [one.commit for one in self.past]
        found = sightings.check(commit, members, source, {one.round: one.plan or "" for one in known})
        window = [*known, commit][-sightings.window(members):]
        sightings.check_majority(window, members, source)
        return found

    def _members(self, said: Commit | Plan, since: LogHead | None, source: str) -> Federation:
        """The federation file that was in force, by the log. since: the entry that the document before it named."""
        if said.log.number > len(self.log) or self.log[said.log.number - 1].digest != said.log.digest:
            raise ChainError(f"{source}: names an entry {said.log.number} that is not in the federation log")
        if since is not None and said.log.number < since.number:
            raise ChainError(f"{source}: names an older entry of the federation log than the round before it")
        logged = self.log[said.log.number - 1]
        if logged.entry.federation_digest != said.federation_digest:
            raise ChainError(f"{source}: names another federation file than the log does")
        return logged.federation

    def _of_contribution(self, said: Contribution | None, plan: Plan, why_not: str) -> str:
        if said is None:
            return ""
        if self.bench is None:
            return "signed"
        why_not = why_not or contribution.why_not(said, plan, self.public)
        return f"signed; not recomputed: {why_not}" if why_not else "recomputed"

    def _recompute(self, planned: Planned, head: Committed, members: Federation, answers: Mapping[str, Answer],
                   gone: bool, said: Contribution | None) -> str:
        """Why the round was not computed again although that was asked for; empty if it was, and is the same."""
        if self.bench is None:
            return ""
        if len(answers) < len(head.commit.updates):
            return "an update was altered, or is gone" if gone else "this credential may not read every update"
        try:
            if said is None or self.public is None or contribution.why_not(said, planned.plan, self.public):
                return recompute(self.bench, self.coordinator, planned, head.commit, members, answers)
            also = contribution.check_again(said, self.bench, planned, head, self.public)
            return recompute(self.bench, self.coordinator, planned, head.commit, members, answers, also)
        except StoreDeniedError:
            return "this credential may not read what the coordinator remembers of the sites"
