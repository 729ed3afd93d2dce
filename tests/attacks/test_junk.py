"""Whatever lies below a member's prefix is at most its own problem; what lies elsewhere under no name of ours, nobody's.

The writer of the junk is the member itself, or whoever may write to the bucket.
"""

from __future__ import annotations

import dataclasses

import pytest

import tasks.collect
import tasks.documents
from fedround import layout
from fedround.signing import MAX_DOCUMENT_BYTES, Identity, seal
from infra import federation_log
from infra.history import last_round
from infra.stores import MemoryStore
from site_workers import recover, rollback
from site_workers.authorise import authorise
from site_workers.campaign import newest_plan
from site_workers.site import Site
from tasks.ask import MeasurementRequest, known, plan_question
from tasks.catch_up import read_again
from tasks.membership import _named
from tasks.plan import plan_round
from tasks.requests import NextRoundRequest
from tasks.verify import find_model, verify_run
from tests.tasks.conftest import Answered

GIANT = bytes(MAX_DOCUMENT_BYTES + 1)
EAST = layout.answers("east", "spring", 2, "train") + "01/"
ODD = [
    "refusal-zz é.json", "refusal-0001.json.json", "refusal-٠٠٠١.json", "refusal-0000.json", "refusal-99999.json", "..",
    "../..", "%2e%2e/answer.json", "answer.json/", "answer.json/answer.json", "ANSWER.JSON", "аnswer.json", "answer.json\n",
    "answer.json\x00", "\x1b[2Janswer.json", "refusal-\udcff.json", "a" * 5_000, "/" * 900,
    "delta.safetensors/x", " ", "[/x]", *(f"refusal-{number:04d}-.json" for number in range(3_000))]


def put(store: MemoryStore, key: str, body: bytes) -> MemoryStore:
    """As a plain S3 request does: any name, in place of what is there."""
    store._objects[key] = body
    return store


def heaped(store: MemoryStore, prefix: str) -> MemoryStore:
    """Odd names below a prefix, each with a document that is too large."""
    for name in ODD:
        put(store, prefix + name, GIANT)
    return store


# -- a member against the others --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "body", "says"), [
    ("answer.json", GIANT, "not what belongs there"), ("answer.json", b"", "not a signed document"),
    ("answer.json", b"[" * 100_000, "not a signed document"), ("answer.json", b"9" * 5_000, "not a signed document"),
    ("answer.json", b'{"body":' + b"[" * 900 + b"]" * 900 + b',"key":"x","kind":"answer","signature":"00"}', "site 'east'"),
    ("refusal-0001.json", GIANT, "not what belongs there"), ("refusal-0001.json", b"\xff\xfe", "not a signed document")],
    ids=["giant", "empty", "nested", "digits", "nested body", "giant refusal", "no text"])
def test_what_a_member_puts_in_place_of_its_answer_is_its_rejection(answered: Answered, name: str, body: bytes, says: str):
    store = put(answered.store(without=EAST), EAST + name, body)
    collected = answered.federation.collect(answered.planned, answered.coordinator(store))
    assert (set(collected.admitted), set(collected.refused), set(collected.rejected)) == ({"north"}, {"south"}, {"east"})
    assert says in collected.rejected["east"].reason


def test_a_member_that_heaps_up_junk_beside_no_answer_has_said_nothing(answered: Answered):
    collected = answered.federation.collect(
        answered.planned, answered.coordinator(heaped(answered.store(without=EAST), EAST)))
    assert (set(collected.admitted), collected.missing) == ({"north"}, ("east",))


@pytest.mark.parametrize("body", [b"", GIANT, bytes(1 << 24)], ids=["empty", "giant", "16 MiB"])
def test_a_delta_of_an_impossible_size_is_a_rejection(answered: Answered, body: bytes):
    collected = answered.federation.collect(answered.planned, answered.coordinator(
        put(answered.store(), layout.delta("east", "spring", 2, 1), body)))
    assert (set(collected.admitted), set(collected.rejected)) == ({"north"}, {"east"})


def test_junk_beside_a_good_answer_changes_nothing(answered: Answered):
    store = heaped(put(answered.store(), EAST + "refusal-0001.json", GIANT), EAST)
    assert set(answered.federation.collect(answered.planned, answered.coordinator(store)).admitted) == {"north", "east"}


def test_refusals_without_end_are_not_all_looked_at(answered: Answered):
    store = answered.store(without=EAST)
    for number in range(1, 5_000):
        put(store, f"{EAST}refusal-{number:04d}.json", b"no")
    looks: list[str] = []
    head = store.head
    store.head = lambda key: looks.append(key) or head(key)  # type: ignore[method-assign,func-returns-value]
    assert set(answered.federation.collect(answered.planned, answered.coordinator(store)).rejected) == {"east"}
    assert len(looks) <= tasks.documents._MOST_REFUSALS + 2


@pytest.mark.parametrize("error", [ZeroDivisionError, OverflowError, RecursionError, KeyError, UnicodeError, AttributeError])
def test_a_mistake_in_the_code_that_judges_is_no_weapon_against_the_others(
        answered: Answered, monkeypatch: pytest.MonkeyPatch, error: type[Exception]):
    judge = tasks.collect.read_answer

    def fails(document, plan, named, member, revoked):
        if member.name == "east":
            raise error
        return judge(document, plan, named, member, revoked)

    monkeypatch.setattr(tasks.collect, "read_answer", fails)
    collected = answered.federation.collect(answered.planned, answered.coordinator(answered.store()))
    assert set(collected.admitted) == {"north"}
    assert f"cannot be judged ({error.__name__})" in collected.rejected["east"].reason


def test_junk_that_comes_after_the_commit_stops_no_report_and_no_proof_of_the_others(answered: Answered):
    store = answered.store()
    committed = answered.commit(store)
    heaped(store, layout.answers("south", "spring", 2, "train") + "01/")
    assert set(read_again(answered.coordinator(store), answered.planned, committed.commit.missing).refused) == {"south"}
    key = answered.federation.coordinator.identity.key
    assert [proof.round for proof in verify_run(store, "spring", key)] == [0, 1, 2]


def test_junk_in_place_of_a_rotation_stops_no_rotation(answered: Answered):
    """Whoever may write below a member's prefix might do that; the member's own word still counts."""
    store, federation = answered.store(), answered.federation.coordinator.federation
    put(heaped(store, layout.rotations("east")), layout.rotation("east", "ed25519:" + "07" * 32), GIANT)
    assert _named(store, federation, "east") == []


# -- whoever may write to the bucket against a site, and against the coordinator -----------------------------------------


def strewn(answered: Answered) -> MemoryStore:
    """Junk in every prefix, far from the places that come next, and copies of good documents among it."""
    store, stranger = answered.store(), Identity.generate()
    plan, commit = answered.planned.plan, answered.planned.parent.commit
    real = {key: store.get(key) for key in store.list("")}
    for prefix in ("", "runs/", "runs/spring/", "runs/spring/rounds/", "runs/spring/rounds/00002/",
                   "runs/spring/evaluations/", "runs/spring/measurements/00001/", "log/", "federations/", "models/",
                   "memory/", "sites/", "sites/north/",
                   layout.answers("north", "spring", 2, "train") + "01/"):
        for name in ODD[:30]:
            put(store, prefix + name, GIANT)
    for number in (99_998, 99_999):
        put(store, layout.log_entry(number), GIANT)
        put(store, layout.commit("spring", number), real[layout.commit("spring", 1)])
        put(store, layout.plan("spring", number, 1, "train"), seal(plan, stranger))
        put(store, layout.answer("north", "spring", number, 1, "train"), GIANT)
    put(store, layout.log_entry(70_000), real[layout.log_entry(1)])
    put(store, layout.commit("spring", 70_000), seal(commit, stranger))
    put(store, layout.plan("spring", 2, 99, "train"), GIANT)
    return store


def site_of(answered: Answered, name: str, store: MemoryStore) -> Site:
    return dataclasses.replace(answered.federation.site(name), store=store)


def test_junk_in_the_bucket_stops_no_site_that_is_well(answered: Answered):
    site = site_of(answered, "north", strewn(answered))
    rollback.require_newest(site)
    found = recover.forgotten(site)
    assert (found.answers, found.charges) == ((), ())
    order = authorise(site, "spring", 2, 1, "train")
    assert order.digest == answered.planned.digest
    assert rollback.refusal(site, order) is None
    assert newest_plan(site)("spring").plan == order.digest


def test_an_entry_that_a_stranger_adds_to_the_log_keeps_no_site_from_its_start(answered: Answered):
    """In the very place of the next entry: only the coordinator, who must write there, is stopped, and names the object."""
    store = answered.store()
    number = federation_log.length(store, answered.federation.coordinator.identity.key)
    put(store, layout.log_entry(number + 1), seal(answered.planned.parent.commit, Identity.generate()))
    rollback.require_newest(site_of(answered, "north", store))
    with pytest.raises(tasks.collect.NOT_OURS, match=rf"It lies at '{layout.log_entry(number + 1)}': ask whoever may write"):
        answered.coordinator(store).publish_federation()


def test_junk_in_the_bucket_stops_no_round_no_question_and_no_proof(answered: Answered):
    store = strewn(answered)
    coordinator = answered.coordinator(store)
    key = coordinator.identity.key
    assert last_round(store, "spring", key) == 1
    assert plan_round(coordinator, NextRoundRequest(run="spring")).digest == answered.planned.digest
    committed = answered.federation.commit(answered.planned, coordinator)
    assert committed.commit.round == last_round(store, "spring", key) == 2
    assert [proof.round for proof in verify_run(store, "spring", key)] == [0, 1, 2]
    assert find_model(store, committed.commit.model, key) == ("spring", 2)


def test_junk_among_the_findings_stops_no_question(answered: Answered):
    """An auditor stops there, and names it: it may have been a finding."""
    store = strewn(answered)
    put(put(store, layout.finding("spring", 1, 99, "measure"), GIANT), layout.finding("spring", 1, 98, "measure"), b"")
    coordinator = answered.coordinator(store)
    asked = MeasurementRequest(run="spring", quorum=2, statistics=(
        {"kind": "histogram", "column": "x1", "edges": (0.0,), "noise_std": 5.0},))
    assert known(coordinator, asked) is None
    planned = plan_question(coordinator, asked)
    assert (planned.plan.attempt, planned.plan.asks.kind) == (1, "measure")


def test_a_round_that_was_taken_away_is_not_taken_for_junk(answered: Answered):
    """A commit behind a gap that the coordinator signed: the gap is what is wrong, and every reader says so."""
    store, key = answered.store(), answered.federation.coordinator.identity.key
    answered.commit(store)
    del store._objects[layout.commit("spring", 1)]
    assert last_round(store, "spring", key) == 2
    with pytest.raises(tasks.collect.NOT_OURS, match="commit of round 1 of run 'spring': is not in the store"):
        list(verify_run(store, "spring", key))
