"""Answers, judged: one liar changes its own line in the record and nothing else."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path

import pytest
import rfc8785

import tasks.collect
import tasks.plan
from fedround import layout
from fedround.errors import ChainError, ContractError, StoreUnavailableError, TrustError
from fedround.privacy.spec import DpSgd
from fedround.records import Answer
from fedround.signing import Identity, seal, unseal
from infra.stores import MemoryStore
from tasks.aggregate import aggregate
from tasks.collected import Collected
from tasks.publish import publish
from tasks.report import report
from tasks.verify import verify_run
from tests import small_federation
from tests.small_federation import NAMES
from tests.tasks.conftest import Answered

EAST = layout.answer("east", "spring", 2, 1, "train")
EAST_DELTA = layout.delta("east", "spring", 2, 1)


def east_says(answered: Answered, of_update: dict[str, object] | None = None, **changes: object) -> Answer:
    """What east signed, with changes."""
    member = answered.federation.coordinator.federation.site("east")
    body = unseal(answered.store().get(EAST), Answer, member.key, "east")
    return body.model_copy(update={"update": body.update.model_copy(update=of_update or {}), **changes})


def replaced(answered: Answered, key: str, body: bytes) -> MemoryStore:
    """The store, with other bytes under one key."""
    store = answered.store(without=key)
    store.put_once(key, body)
    return store


def flipped(body: bytes, where: int) -> bytes:
    altered = bytearray(body)
    altered[where] ^= 1
    return bytes(altered)


@pytest.fixture(scope="module")
def without_east(answered: Answered) -> str:
    """The model of the round in which east said nothing."""
    store = answered.store(without=EAST)
    commit = answered.federation.commit(one_is_enough(answered), answered.coordinator(store)).commit
    assert commit.missing == ("east",)
    return commit.model


def one_is_enough(answered: Answered):
    """The same plan as the coordinator sees it, were the quorum 1. Its digest, which the sites signed, stays."""
    return dataclasses.replace(answered.planned, plan=answered.planned.plan.model_copy(update={"quorum": 1}))


def test_everybody_is_in_exactly_one_place(answered: Answered):
    collected = answered.federation.collect(answered.planned, answered.coordinator(answered.store(without=EAST)))
    assert (set(collected.admitted), set(collected.refused), set(collected.rejected), collected.missing) == (
        {"north"}, {"south"}, set(), ("east",))


@pytest.mark.parametrize("forgery", ["flipped answer", "flipped tensors", "another key", "another site", "no document",
                                     "no tensors"])
def test_a_forged_answer_is_a_rejection_and_nothing_else_changes(answered: Answered, without_east: str, forgery: str):
    store = answered.store()
    document, delta = store.get(EAST), store.get(EAST_DELTA)
    match forgery:
        case "flipped answer":
            store = replaced(answered, EAST, flipped(document, len(document) // 2))
        case "flipped tensors":
            store = replaced(answered, EAST_DELTA, flipped(delta, len(delta) - 3))
        case "another key":
            store = replaced(answered, EAST, seal(east_says(answered), Identity.generate()))
        case "another site":
            north = layout.answer("north", "spring", 2, 1, "train")
            store = replaced(answered, EAST, store.get(north))
        case "no document":
            store = replaced(answered, EAST, b"{}")
        case "no tensors":
            store = answered.store(without=EAST_DELTA)
    collected = answered.federation.collect(answered.planned, answered.coordinator(store))
    assert collected.forged == (set() if forgery.endswith("tensors") else {"east"})
    commit = answered.federation.commit(one_is_enough(answered), answered.coordinator(store)).commit
    assert [rejection.site for rejection in commit.rejected] == ["east"]
    assert [update.site for update in commit.updates] == ["north"]
    assert [refusal.site for refusal in commit.refusals] == ["south"]
    assert commit.model == without_east


def test_what_a_site_says_about_itself_changes_nothing(answered: Answered):
    """Law 3. East claims another noise, another spending, another ledger and a perfect model: the same model comes out."""
    honest = answered.commit(answered.store()).commit
    said = east_says(answered)
    assert isinstance(said.update.mechanism, DpSgd)
    (scores,) = said.releases
    boast = east_says(
        answered, {"mechanism": said.update.mechanism.model_copy(update={"sampling_rate": 0.9, "noise_multiplier": 2.0})},
        epsilon=0.0, ledger_head="0" * 64, releases=(scores.model_copy(update={"numbers": (0.0,) * 10 + (1e6,) * 10}),))
    signed = seal(boast, answered.federation.site("east").identity)
    commit = answered.commit(replaced(answered, EAST, signed)).commit
    assert commit.model == honest.model
    assert [(u.site, u.weight, u.norm) for u in commit.updates] == [(u.site, u.weight, u.norm) for u in honest.updates]


@pytest.mark.parametrize("claim", ["weight", "count", "trusted", "signed by"])
def test_there_is_no_place_for_a_weight_in_an_answer(answered: Answered, claim: str):
    """A signed answer with one key more is not an answer."""
    identity = answered.federation.site("east").identity
    document = json.loads(seal(east_says(answered), identity))
    document["body"][claim] = 10_000
    document["signature"] = identity.sign(b"fedround/1/answer\n" + rfc8785.dumps(document["body"])).hex()
    collected = answered.federation.collect(
        answered.planned, answered.coordinator(replaced(answered, EAST, rfc8785.dumps(document))))
    assert f"unknown key '{claim}'" in collected.rejected["east"].reason
    assert collected.forged == set()


@pytest.mark.parametrize(("rate", "rows"), [(0.1, 3), (1.0, 33)])
def test_rows_are_told_only_by_who_has_fewer_than_a_batch(answered: Answered, rate: float, rows: int):
    """Noise is divided by them: whoever could name any number could name any law of the noise."""
    mechanism = east_says(answered).update.mechanism.model_copy(update={"sampling_rate": rate})
    signed = seal(east_says(answered, {"mechanism": mechanism, "rows": rows}),
                  answered.federation.site("east").identity)
    collected = answered.federation.collect(answered.planned, answered.coordinator(replaced(answered, EAST, signed)))
    assert f"{rows} rows" in collected.rejected["east"].reason


def test_a_message_about_a_liar_does_not_repeat_what_it_sent(answered: Answered):
    store = replaced(answered, EAST, b'{"kind":"answer","body":{"attack":"<script>"},"key":"","signature":""}')
    collected = answered.federation.collect(answered.planned, answered.coordinator(store))
    assert "script" not in collected.rejected["east"].reason


class Down(MemoryStore):
    """A store that stops answering."""

    def get(self, key: str, *, max_bytes: int | None = None, sha256: str | None = None) -> bytes:
        raise StoreUnavailableError("the object store does not answer")


def test_a_store_that_is_down_is_an_error_and_not_a_rejection_of_everybody(answered: Answered):
    with pytest.raises(StoreUnavailableError):
        answered.federation.collect(answered.planned, answered.coordinator(Down()))


class Silent(MemoryStore):
    """A store that has some objects and does not give them out."""

    about: tuple[str, ...] = ()

    def get(self, key: str, *, max_bytes: int | None = None, sha256: str | None = None) -> bytes:
        if key in self.about:
            raise StoreUnavailableError("the object store does not answer")
        return super().get(key, max_bytes=max_bytes, sha256=sha256)


def test_an_answer_that_is_not_given_out_is_missing_as_long_as_our_own_plan_is_given(answered: Answered):
    """If the plan is not either, the store is down, and no site is late."""
    store, whole = Silent(), answered.store()
    for key in whole.list(""):
        store.put_once(key, whole.get(key))
    store.about = (EAST,)
    late = tasks.collect.take_late(answered.coordinator(store), answered.planned, Collected(missing=NAMES))
    assert late.missing == ("east",)
    assert (set(late.admitted), set(late.refused)) == ({"north"}, {"south"})
    store.about = (EAST, layout.plan("spring", 2, 1, "train"))
    with pytest.raises(StoreUnavailableError):
        tasks.collect.take_late(answered.coordinator(store), answered.planned, Collected(missing=NAMES))


def test_a_damaged_federation_log_is_the_coordinators_problem_and_no_sites(answered: Answered):
    store = replaced(answered, layout.log_entry(1), b"{}")
    with pytest.raises(TrustError, match="entry 1 of the federation log"):
        answered.federation.collect(answered.planned, answered.coordinator(store))
    with pytest.raises(TrustError, match="entry 1 of the federation log"):
        tasks.collect.take_late(answered.coordinator(store), answered.planned, Collected(missing=NAMES))


def test_what_was_collected_cannot_be_changed_and_late_answers_make_another_one(answered: Answered):
    coordinator = answered.coordinator(answered.store(without=EAST))
    collected = answered.federation.collect(answered.planned, coordinator)
    for heard in (collected.admitted, collected.refused, collected.rejected):
        with pytest.raises(TypeError, match="does not support item assignment"):
            heard["east"] = None
    before = dict(collected.admitted)
    later = tasks.collect.take_late(answered.coordinator(answered.store()), answered.planned, collected)
    assert (set(later.admitted), later.missing) == ({"north", "east"}, ())
    assert (dict(collected.admitted), collected.missing) == (before, ("east",))


def test_at_the_deadline_an_answer_counts_whose_signal_was_lost(answered: Answered):
    """Nobody ever says "done": the store is asked once more, and everything that is there is read."""
    async def nobody(_among: set[str]) -> set[str]:
        return set()

    planned = dataclasses.replace(answered.planned, plan=answered.planned.plan.model_copy(update={"deadline_s": 0}))
    collected = asyncio.run(tasks.collect.collect(
        answered.coordinator(answered.store()), planned, nobody, lambda _: None))
    assert collected.answered == set(NAMES)
    assert collected.missing == ()


def test_who_has_ended_is_read_and_looks_become_rarer_while_nobody_ends(answered: Answered, monkeypatch: pytest.MonkeyPatch):
    """South ends at the 21st look, the others at the 24th; no look is taken twice, and nobody is read before."""
    looks, pauses, read = [], [], []

    async def no_time(seconds: float) -> None:
        pauses.append(seconds)

    async def late(among: set[str]) -> set[str]:
        looks.append(among)
        return {21: {"south"}, 24: among}.get(len(looks), set())

    monkeypatch.setattr(tasks.collect.asyncio, "sleep", no_time)
    monkeypatch.setattr(tasks.collect, "POLL_S", 0.3)
    asyncio.run(tasks.collect.collect(answered.coordinator(answered.store()), answered.planned, late,
                                      lambda _: read.append(len(looks))))
    assert read == [21, 24, 24]
    assert (len(pauses), pauses[:21]) == (23, sorted(pauses[:21]))
    assert (pauses[0], pauses[20]) == (0.3, tasks.collect.MAX_POLL_S)
    assert pauses[21] == 0.3, "where one has ended, others may soon"


@pytest.mark.parametrize(("deadline_s", "longest_s"), [(0, 10), (600, 600)])
def test_reading_goes_on_for_as_long_as_the_sites_had_and_ten_seconds_at_least(answered: Answered, deadline_s: int,
                                                                               longest_s: int):
    assert tasks.collect.last_look_s(answered.planned.plan.model_copy(update={"deadline_s": deadline_s})) == longest_s


def test_more_are_invited_than_are_waited_for_and_who_is_there_counts(answered: Answered):
    """North ends first, and one update is enough; nobody asks about the others again."""
    planned = dataclasses.replace(answered.planned, plan=answered.planned.plan.model_copy(update={"enough": 1}))
    asked = []

    async def north_first(among: set[str]) -> set[str]:
        asked.append(set(among))
        return among & {"north"}

    coordinator = answered.coordinator(answered.store())
    collected = asyncio.run(tasks.collect.collect(coordinator, planned, north_first, lambda _: None))
    assert (set(collected.admitted), collected.missing, len(asked)) == ({"north"}, ("east", "south"), 1)
    later = tasks.collect.take_late(coordinator, planned, collected)
    assert set(later.admitted) == {"north", "east"}, "who was just sending counts, too"


def test_a_refusal_is_not_enough(answered: Answered):
    planned = dataclasses.replace(answered.planned, plan=answered.planned.plan.model_copy(update={"enough": 1}))
    ended = iter(({"south"}, {"north"}))

    async def one_after_the_other(_among: set[str]) -> set[str]:
        return next(ended)

    collected = asyncio.run(tasks.collect.collect(
        answered.coordinator(answered.store()), planned, one_after_the_other, lambda _: None))
    assert (set(collected.admitted), set(collected.refused), collected.missing) == ({"north"}, {"south"}, ("east",))


def test_a_round_that_closes_with_enough_says_so_and_proves(tmp_path: Path, rows_are_judged_here: None):
    federation = small_federation.make(tmp_path, enough=2)
    planned = federation.plan()
    for name in NAMES[:2]:
        federation.answer(name, planned)
    coordinator = federation.coordinator
    collected = federation.collect(planned, coordinator, NAMES[:2])
    committed = publish(coordinator, planned, collected, aggregate(coordinator, planned, collected))
    record = report(coordinator, planned, collected, committed, None, 1.0)
    assert {row.site: row.note for row in record.sites if row.outcome == "missing"} == {
        "south": "not waited for: enough others had answered; it may have been charged"}
    assert [proof.round for proof in verify_run(coordinator.store, "spring", coordinator.identity.key)] == [0, 1]


def test_attack_a_round_closes_with_fewer_than_all_agreed_on(tmp_path: Path, rows_are_judged_here: None, monkeypatch):
    """A coordinator that is in a hurry would keep slow members' rows out of every model."""
    federation = small_federation.make(tmp_path)
    composed = tasks.plan.compose
    monkeypatch.setattr(tasks.plan, "compose", lambda *asked: composed(*asked).model_copy(update={"enough": 2}))
    federation.round(sites=NAMES[:2])
    coordinator = federation.coordinator
    with pytest.raises(ChainError, match="closes with 2 updates, and the federation file says all"):
        list(verify_run(coordinator.store, "spring", coordinator.identity.key))


@pytest.mark.parametrize(("changes", "says"), [({"enough": 1}, "below the quorum of 2")])
def test_what_is_not_enough(tmp_path: Path, changes: dict[str, object], says: str):
    with pytest.raises(ContractError, match=says):
        small_federation.make(tmp_path, **changes)
