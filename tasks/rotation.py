"""Several coordinators: one proposes a round, the others compute it again and sign it, and a majority makes it count.

::

    whose turn     coordinators[round mod n]; after `silence_s` without a commit the next one goes on with the same plan
    proposal       a signed commit at proposal-<n>.json, put if nothing is there: the store orders proposals
    signature      each coordinator signs the first proposal that holds, and one a round, ever
    commit         whoever sees a majority puts that proposal to commit.json

What a coordinator needs lies in the store and in the agreed files, so whoever goes on finds all of it. Every honest
coordinator judges by the same bytes, so all sign the same proposal; a coordinator that proposes two has one signed at most.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from fedround import layout
from fedround.errors import ContractError, FedroundError, NotFoundError, QuorumError, StoreError, TrustError
from fedround.files import create_once, make_folders
from fedround.records import Commit, Cosignature
from fedround.signing import MAX_DOCUMENT_BYTES, envelope, seal
from fedround.values import Digest
from infra.documents import NOT_OURS
from infra.history import Committed, cosigners, proposed, read_checkpoint, read_commit
from infra.stores import put_first
from tasks import verify
from tasks.agreed import Proven
from tasks.begin import Committing, beginning
from tasks.coordinator import Coordinator
from tasks.recompute import Bench

log = logging.getLogger("fedround.coordinator")

POLL_S = 0.5
MOST = 99
"""Proposals for one round."""


def turn(coordinator: Coordinator, number: int) -> int:
    """How many others come before this coordinator in the round of this number: 0 if it is its turn. The run is begun by
    whoever proposes round 1. Raises ContractError if it is none of several coordinators.
    """
    names = [one.name for one in coordinator.federation.coordinators]
    if coordinator.name not in names:
        raise ContractError(f"federation '{coordinator.federation.name}': the key of this folder is none of its "
                            "coordinators'")
    return (names.index(coordinator.name) - max(number, 1)) % len(names)


def first_that_holds(proposals: Sequence[Digest], holds: Callable[[Digest], bool]) -> Digest | None:
    """Which of the proposals for a round, in the order in which the store has them, an honest coordinator signs."""
    return next((one for one in proposals if holds(one)), None)


class Cosigner:
    """Judges proposals for one run: as `verify --recompute` would, if they were committed."""

    def __init__(self, coordinator: Coordinator, run: str):
        self._coordinator, self._run = coordinator, run
        self._trial = verify.Trial(coordinator.store, coordinator.key, (), None, None)
        self._before: Proven | None = None
        self._why = dict[Digest, str]()

    def why_not(self, proposal: Committed, by: str) -> str:
        """Why this proposal does not hold; empty if it does. by: the key that signed it. Raises StoreError if that cannot be
        said now.
        """
        if proposal.digest not in self._why:
            try:
                self._judge(proposal, by)
                self._why[proposal.digest] = ""
            except StoreError:
                raise
            except FedroundError as error:
                self._why[proposal.digest] = str(error)
        return self._why[proposal.digest]

    def _judge(self, proposal: Committed, by: str) -> None:
        coordinator, number = self._coordinator, proposal.commit.round
        entries = verify.read_log(coordinator.store, coordinator.key)
        if by not in {one.key for one in entries[-1].federation.coordinators}:
            raise TrustError("who proposes it is no coordinator any more, says the federation log")
        self._trial = replace(self._trial, log=entries)
        while (0 if self._before is None else self._before.committed.commit.round + 1) < number:
            following = 0 if self._before is None else self._before.committed.commit.round + 1
            self._before = self._trial.prove(
                read_commit(coordinator.store, self._run, following, coordinator.key), self._before)[1]
        if number == 0:
            self._judge_beginning(proposal)
        bench = Bench(coordinator.folder / "cosigned", coordinator.store, coordinator.settings.memory_budget_mb << 20)
        past = deque(self._trial.past, self._trial.past.maxlen)
        trial = replace(self._trial, bench=bench, past=past, lost=[])
        proof, _ = trial.prove(proposal, self._before if number > 0 else None)
        if number > 0 and not proof.recomputed:
            raise TrustError(f"it cannot be computed again: {proof.not_recomputed or '; '.join(trial.lost)}")

    def _judge_beginning(self, proposal: Committed) -> None:
        coordinator = self._coordinator
        found = read_checkpoint(coordinator.store, proposal.commit, coordinator.key)
        begins, _ = beginning(coordinator, self._run, None if found.after is None else found.after.run, found.choice)
        if (begins.model.sha256, begins.rest, begins.after) != (proposal.commit.model, found.rest, found.after):
            raise TrustError(f"run '{self._run}' does not begin with this model")


def settle(coordinator: Coordinator, run: str, number: int, cosigner: Cosigner, mine: bytes | None = None
           ) -> Committed | None:
    """One look: sign the first proposal that holds, and commit it if a majority has; None: none is committed yet.

    mine: a proposal of this coordinator's, which is put behind those that are there, and counts if none of these holds.
    """
    store, key, source = coordinator.store, coordinator.key, f"proposal for round {number} of run '{run}'"
    try:
        return read_commit(store, run, number, key)
    except NotFoundError:
        pass
    found, documents = dict[Digest, Committed](), dict[Digest, bytes]()

    def one_that_holds() -> Digest | None:
        def holds(named: Digest) -> bool:
            if why := cosigner.why_not(found[named], envelope(documents[named], source).key):
                log.warning("a proposal for round %d of run '%s' does not hold, and is not signed: %s", number, run, why)
            return not why

        return first_that_holds(tuple(found), holds)

    for count in range(1, MOST + 1):
        place = layout.proposal(run, number, count)
        try:
            document = store.get(place, max_bytes=MAX_DOCUMENT_BYTES)
        except NotFoundError:
            if mine is None or one_that_holds() is not None:
                break
            put_first(store, place, mine)
            document = store.get(place, max_bytes=MAX_DOCUMENT_BYTES)
        if document == mine:
            mine = None
        try:
            one = proposed(store, document, run, number, key, source)
        except NOT_OURS as error:
            log.warning("%s: %s", place, error)
            continue
        found[one.digest], documents[one.digest] = one, document
    chosen = one_that_holds()
    if chosen is None or not _signed(coordinator, found[chosen]):
        return None
    if len(cosigners(store, found[chosen], coordinator.federation)) < coordinator.federation.majority:
        return None
    put_first(store, layout.commit(run, number), documents[chosen])
    return read_commit(store, run, number, key)


def _signed(coordinator: Coordinator, proposal: Committed) -> bool:
    """Sign, unless this coordinator has signed another proposal of the round: what it signed is on its disk first."""
    commit, folder = proposal.commit, coordinator.folder / "cosigned"
    make_folders(folder, 0o700)
    kept = folder / f"{commit.run}-{commit.round:05d}"
    if not create_once(kept, proposal.digest.encode()) and kept.read_text() != proposal.digest:
        log.error("round %d of run '%s': another proposal than the one that was signed here comes first now: the store, or "
                  "somebody who may write to it, shows two orders of proposals", commit.round, commit.run)
        return False
    said = Cosignature(federation=commit.federation, run=commit.run, round=commit.round, commit=proposal.digest,
                       coordinator=coordinator.name or "")
    put_first(coordinator.store, layout.cosignature(commit.run, commit.round, proposal.digest, said.coordinator),
              seal(said, coordinator.identity))
    return True


def committed(coordinator: Coordinator, run: str, number: int, mine: bytes, sleep: Callable[[float], None] = time.sleep,
              clock: Callable[[], float] = time.monotonic) -> Committed:
    """Propose a commit, and wait until one of the round is signed by a majority: this one, or one that came before it.

    Raises QuorumError if too few have signed within as many silences as there are coordinators.
    """
    federation, cosigner, began = coordinator.federation, Cosigner(coordinator, run), clock()
    while (done := settle(coordinator, run, number, cosigner, mine)) is None:
        if clock() - began > federation.silence_s * len(federation.coordinators):
            raise QuorumError(f"round {number} of run '{run}': fewer than {federation.majority} of "
                              f"{len(federation.coordinators)} coordinators signed a commit. Nothing is committed; when more "
                              "of them serve, run it again: what was proposed and signed counts")
        sleep(POLL_S)
    return done


def by_majority(coordinator: Coordinator) -> Committing | None:
    """How this coordinator commits: by proposing, where there are several; None: alone."""
    if not coordinator.federation.coordinators:
        return None

    def propose(coordinator: Coordinator, commit: Commit) -> None:
        committed(coordinator, commit.run, commit.round, seal(commit, coordinator.identity))

    return propose


def follow(coordinator: Coordinator, run: str, sleep: Callable[[float], None] = time.sleep,
           clock: Callable[[], float] = time.monotonic) -> Committed | None:
    """Sign what others propose for the run's next round, until it is committed; None: it is this coordinator's turn, or
    those whose turn it was have been silent for too long.
    """
    last = coordinator.last_round(run)
    number, cosigner, began = 0 if last is None else last + 1, Cosigner(coordinator, run), clock()
    while clock() - began < turn(coordinator, number) * coordinator.federation.silence_s:
        try:
            done = settle(coordinator, run, number, cosigner)
        except StoreError as error:
            log.warning("round %d of run '%s': %s", number, run, error)
            done = None
        if done is not None and number > 0:
            return done
        if done is not None:
            number, began = 1, clock()
        sleep(POLL_S)
    return None
