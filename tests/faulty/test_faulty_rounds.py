"""Rounds on a store that does harm: the same bytes are committed, or a sentence says why not and the next try repairs it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from pathlib import Path

import pytest

import infra.stores.base
import tasks.collect
from fedround import layout
from fedround.errors import FedroundError, StoreDeniedError, StoreError, StoreUnavailableError, TooSlowError
from fedround.signing import seal
from infra.federation_log import extend
from infra.stores import MemoryStore, ObjectStore, Patience
from site_workers import outbox, release
from site_workers import round as site_round
from tasks.plan import plan_round
from tasks.requests import NextRoundRequest
from tasks.verify import verify_run
from tests.faulty.store import ALL, LISTING, READING, WRITING, FaultyStore
from tests.small_federation import NAMES, SmallFederation
from tests.tasks.conftest import Answered, answered, objects

__all__ = ["answered"]

SEEDS = range(10)


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.collect, "POLL_S", 0.0)
    monkeypatch.setattr(infra.stores.base, "_PAUSES_S", (0.0, 0.0))


@pytest.fixture(scope="module")
def undisturbed(answered: Answered) -> dict[str, bytes]:
    store = answered.store()
    commit_and_go_on(answered, store)
    return objects(store)


def commit_and_go_on(answered: Answered, store: ObjectStore) -> None:
    """Commit round 2, and plan round 3: that looks the history up."""
    answered.commit(store)
    plan_round(answered.coordinator(store), NextRoundRequest(run="spring"))


def one_sentence(error: FedroundError) -> bool:
    """Something a person can read: no traceback, no dump."""
    return 20 < len(str(error)) < 900 and "Traceback" not in str(error)


@pytest.mark.parametrize("faults", [ALL, tuple(f"get {what}" for what in READING), tuple(f"put {what}" for what in WRITING),
                                    tuple(f"list {what}" for what in LISTING)], ids=["all", "reading", "writing", "listing"])
def test_a_coordinator_commits_the_same_bytes_or_stops_with_a_sentence_and_goes_on_when_run_again(
        answered: Answered, undisturbed: dict[str, bytes], faults: tuple[str, ...]):
    done = Counter[str]()
    for seed in SEEDS:
        store = answered.store()
        faulty = FaultyStore(store, seed, faults, rate=0.1 if faults == ALL else 0.3)
        try:
            commit_and_go_on(answered, faulty)
        except FedroundError as error:
            assert one_sentence(error), seed
        commit_and_go_on(answered, store)
        assert objects(store) == undisturbed, seed
        done.update(what for what, _ in faulty.done)
    assert set(done) == set(faults) or faults == ALL, "the harm that is meant is done"


@pytest.mark.parametrize("key", ["answer", "delta"])
@pytest.mark.parametrize("what", [what for what in READING if what != "denied for once"])
def test_one_bad_read_excludes_nobody(answered: Answered, undisturbed: dict[str, bytes], what: str, key: str):
    store = answered.store()
    where = (layout.answer("east", "spring", 2, 1, "train") if key == "answer" else layout.delta("east", "spring", 2, 1))
    faulty = OnlyAt(store, where, what)
    commit = answered.commit(faulty).commit
    assert faulty.done == [(f"get {what}", where)]
    assert (commit.rejected, commit.missing) == ((), ())
    assert objects(store).items() <= undisturbed.items()


class OnlyAt(FaultyStore):
    """Harms the first reading of one key."""

    def __init__(self, store: ObjectStore, key: str, what: str):
        super().__init__(store, 1, (f"get {what}",), rate=1.0, most=1)
        self._key = key

    def _fault(self, when: str, kinds: tuple[str, ...], key: str) -> str:
        return super()._fault(when, kinds, key) if key == self._key else ""


class Unreadable(MemoryStore):
    """Gives everything but what lies below one site's prefix: a member can have its objects so."""

    def __init__(self, held: dict[str, bytes], site: str, error: type[StoreError]):
        super().__init__()
        self._objects, self._prefix, self._error = dict(held), layout.site_prefix(site), error

    def get(self, key: str, *, max_bytes: int | None = None, sha256: str | None = None) -> bytes:
        if key.startswith(self._prefix):
            raise self._error("not for you")
        return super().get(key, max_bytes=max_bytes, sha256=sha256)


@pytest.mark.parametrize("error", [StoreUnavailableError, StoreDeniedError, TooSlowError])
def test_a_member_whose_answer_nobody_can_read_is_missing_and_no_more(answered: Answered, error: type[StoreError]):
    at_once = answered.planned.plan.model_copy(update={"deadline_s": 0, "quorum": 1})
    planned = dataclasses.replace(answered.planned, plan=at_once)
    store = Unreadable(objects(answered.store()), "east", error)
    commit = answered.federation.commit(planned, answered.coordinator(store)).commit
    assert (commit.missing, commit.rejected) == (("east",), ())
    assert [update.site for update in commit.updates] == ["north"]


class Clock:
    """Time that passes when somebody sleeps, or reads a body that trickles."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Slow(MemoryStore):
    """One site's bodies would take an hour each; a reader that has patience gives up in time."""

    def __init__(self, held: dict[str, bytes], site: str, clock: Clock, patience: Patience | None = None):
        super().__init__()
        self._objects, self._site, self._clock, self._patience = held, site, clock, patience

    def get_range(self, key: str, start: int, length: int) -> bytes:
        if key.startswith(layout.site_prefix(self._site)):
            self._clock.now += 3600 if self._patience is None else min(3600, self._patience.left_s)
            if self._patience is not None:
                self._patience.check(f"reading '{key}'")
        return super().get_range(key, start, length)

    def within(self, patience: Patience) -> Slow:
        return Slow(self._objects, self._site, self._clock, patience)


def test_one_patience_bounds_all_that_a_step_waits_for_and_the_others_are_read(answered: Answered):
    """A deadline of 5 s took 176 s when one body was slow."""
    clock = Clock()
    planned = dataclasses.replace(answered.planned, plan=answered.planned.plan.model_copy(update={"deadline_s": 0}))
    store = Slow(objects(answered.store()), "east", clock)

    async def everybody(among: set[str]) -> set[str]:
        return among

    collected = asyncio.run(tasks.collect.collect(
        answered.coordinator(store), planned, everybody, lambda _: None, Patience(15.0, clock, clock.sleep)))
    assert clock.now <= 15.0
    assert (set(collected.admitted), set(collected.refused), collected.missing) == ({"north"}, {"south"}, ("east",))


class CountsLists(MemoryStore):
    """Hides every entry of the log in its lists, and counts them."""

    lists = 0

    def list(self, prefix: str):
        self.lists += 1
        return (key for key in super().list(prefix) if not key.startswith(layout.LOG))


def test_a_list_that_hides_the_log_makes_nobody_spin(answered: Answered):
    """It was asked for 33,066 times in 12 s."""
    coordinator, store = answered.federation.coordinator, CountsLists()
    for key, body in objects(answered.store()).items():
        store.put_once(key, body)
    store.lists = 0
    head = extend(store, coordinator.identity, coordinator.federation, coordinator.federation_document).head
    assert (head.number, store.lists) == (1, 1)
    edited = coordinator.federation.model_copy(update={"deadline_s": 61})
    assert extend(store, coordinator.identity, edited, seal(edited, coordinator.identity)).head.number == 2
    assert store.lists == 2


# -- the site's half ---------------------------------------------------------------------------------------------------


def test_a_site_says_sent_when_the_store_has_been_seen_to_have_it(federation: SmallFederation):
    """The store answers 200 and keeps nothing: the tensors stay here, and go when it is well."""
    planned, site = federation.plan(), federation.site("east")
    broken = dataclasses.replace(site, store=FaultyStore(site.store, 1, ("put lost", "put in trouble"), rate=1.0))
    request = site_round.SiteRequest(run="spring", round=1, attempt=1, purpose="train")
    with pytest.raises(StoreError):
        site_round.answer(broken, request, lambda: False)
    kept = outbox.find(site.safe, planned.plan)
    assert kept is not None
    assert not kept.sent
    assert kept.payload is not None
    assert kept.payload.exists()
    with pytest.raises(StoreError, match=r"has taken|had taken"):
        release.resend(dataclasses.replace(site, store=AlwaysLoses(site.store)))
    assert kept.payload.exists()
    assert release.resend(site) == 1
    assert not kept.payload.exists()
    assert site.store.head(layout.delta("east", "spring", 1, 1)) is not None


class AlwaysLoses(FaultyStore):
    """Takes everything, and keeps nothing."""

    def __init__(self, store: ObjectStore):
        super().__init__(store, 1, ())

    def put_once(self, key: str, body: bytes | Path, *, sha256: str | None = None, journal: Path | None = None) -> bool:
        return True


def test_a_whole_round_on_a_store_that_does_harm_ends_as_it_does_on_one_that_does_not(
        made: SmallFederation, tmp_path: Path, rows_are_judged_here: None):
    """Plan, answers and commit, every member run again until it is through; then the history proves itself."""
    ends = []
    for seed in (None, 7):
        federation = made.copy(tmp_path / str(seed))
        harm = None if seed is None else FaultyStore(federation.coordinator.store, seed, rate=0.1)
        ends.append(played(federation, harm))
        coordinator = federation.coordinator
        assert [proof.updates for proof in verify_run(coordinator.store, "spring", coordinator.identity.key)][1:] == [
            ("east", "north", "south")]
        for name in NAMES:
            assert len((federation.root / name / "ledger.jsonl").read_text().splitlines()) == 2, "a head and one charge"
    assert ends[1] == ends[0]


def played(federation: SmallFederation, harm: ObjectStore | None) -> set[str]:
    """One round; whoever fails is run again. Returns the names of all models and states (answers tell the time)."""
    coordinator = federation.coordinator if harm is None else dataclasses.replace(federation.coordinator, store=harm)
    planned = until_it_works(lambda: plan_round(coordinator, NextRoundRequest(run="spring")))
    for name in NAMES:
        site = federation.site(name)
        running = site if harm is None else dataclasses.replace(site, store=harm)
        until_it_works(lambda name=name, running=running: federation.answer(name, planned, running))
    until_it_works(lambda: federation.commit(planned, coordinator))
    return set(federation.coordinator.store.list("models/"))


def until_it_works(act):
    for _ in range(20):
        try:
            return act()
        except FedroundError as error:
            assert one_sentence(error)
    raise AssertionError("twenty tries")
