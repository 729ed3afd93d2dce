"""One round, one commit: whatever the order, whoever is killed, however many try."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from pathlib import Path

import pytest

from fedround import layout
from fedround.errors import QuorumError, StoreError
from infra.stores import MemoryStore
from tasks.aggregate import aggregate
from tasks.plan import plan_round
from tasks.publish import publish
from tasks.requests import NextRoundRequest
from tasks.verify import verify_run
from tests.small_federation import NAMES, SmallFederation
from tests.tasks.conftest import Answered, objects

PUTS_OF_A_ROUND = 5      # model, optimizer state, distances, checkpoint, commit
PUTS_OF_A_BEGINNING = 6  # federation file, initial model, checkpoint, commit of round 0, federation file, plan


@pytest.fixture(scope="module")
def undisturbed(answered: Answered) -> dict[str, bytes]:
    """Everything in the store after a round that nothing disturbed."""
    store = answered.store()
    answered.commit(store)
    return objects(store)


class KilledError(BaseException):
    """SIGKILL, as far as Python can play it: no handler of ours catches it."""


class Mortal(MemoryStore):
    """A store whose client dies at its k-th write: just before it, or just after."""

    def __init__(self, objects_before: dict[str, bytes], k: int, moment: str):
        super().__init__()
        self._objects = dict(objects_before)
        self._left, self._moment = k, moment

    def put_once(self, key: str, body: bytes | Path, *, sha256: str | None = None, journal: Path | None = None) -> bool:
        self._left -= 1
        if self._left == 0 and self._moment == "before":
            raise KilledError
        created = super().put_once(key, body, sha256=sha256, journal=journal)
        if self._left == 0:
            raise KilledError
        return created


def survivor(store: MemoryStore) -> MemoryStore:
    """What the next process finds."""
    left = MemoryStore()
    for key, body in objects(store).items():
        left.put_once(key, body)
    return left


@pytest.mark.parametrize("order", list(itertools.permutations(NAMES)), ids="-".join)
def test_the_order_of_arrival_is_irrelevant(answered: Answered, undisturbed: dict[str, bytes], order: tuple[str, ...]):
    store = answered.store()
    answered.commit(store, order)
    assert objects(store) == undisturbed


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("k", range(1, PUTS_OF_A_ROUND + 1))
def test_killed_at_any_write_and_started_again_it_commits_the_same_bytes(
        answered: Answered, undisturbed: dict[str, bytes], k: int, moment: str):
    mortal = Mortal(objects(answered.store()), k, moment)
    with pytest.raises(KilledError):
        answered.commit(mortal)
    left = survivor(mortal)
    committed = left.head(layout.commit("spring", 2)) is not None
    assert committed == (k == PUTS_OF_A_ROUND and moment == "after"), "the commit comes last"
    answered.commit(left)
    assert objects(left) == undisturbed


def test_that_is_every_write_there_is(answered: Answered):
    """Otherwise the test above would leave a step out."""
    before = objects(answered.store())
    mortal = Mortal(before, 1000, "before")
    answered.commit(mortal)
    assert len(objects(mortal)) == len(before) + PUTS_OF_A_ROUND


@pytest.mark.parametrize("k", range(1, PUTS_OF_A_BEGINNING + 1))
def test_killed_while_a_run_begins_it_begins_as_the_same_run(answered: Answered, k: int):
    whole = Mortal({}, PUTS_OF_A_BEGINNING + 1, "before")
    plan_round(answered.coordinator(whole), NextRoundRequest(run="autumn"))
    mortal = Mortal({}, k, "after")
    with pytest.raises(KilledError):
        plan_round(answered.coordinator(mortal), NextRoundRequest(run="autumn"))
    left = survivor(mortal)
    plan_round(answered.coordinator(left), NextRoundRequest(run="autumn"))
    assert objects(left) == objects(whole)


@pytest.mark.parametrize("k", range(1, PUTS_OF_A_ROUND + 1))
def test_killed_at_any_write_it_is_in_nobodys_way_when_a_late_answer_has_come_meanwhile(answered: Answered, k: int):
    """The second try counts one site more, so its model is another: what the first left must not block it."""
    late = layout.answer("east", "spring", 2, 1, "train")
    planned = dataclasses.replace(answered.planned, plan=answered.planned.plan.model_copy(update={"quorum": 1}))
    mortal = Mortal(objects(answered.store(without=late)), k, "after")
    with pytest.raises(KilledError):
        answered.federation.commit(planned, answered.coordinator(mortal))
    left = survivor(mortal)
    left.put_once(late, answered.store().get(late))
    commit = answered.commit(left).commit
    assert len(commit.updates) == (1 if k == PUTS_OF_A_ROUND else 2)
    assert answered.commit(left).commit == commit


def test_of_two_coordinators_one_commits_and_both_read_the_same(answered: Answered, tmp_path: Path):
    """One has seen east's answer and one has not; both reach the last step together, many times."""
    for trial in range(10):
        store, together, read = answered.store(), threading.Barrier(2), {}
        east_is_late = answered.store(without=layout.answer("east", "spring", 2, 1, "train"))
        seen = {}
        for name, what in (("one", store), ("two", east_is_late)):
            coordinator = answered.coordinator(what, tmp_path / f"{name}-{trial}")
            planned = answered.planned
            collected = answered.federation.collect(planned, coordinator)
            seen[name] = collected, aggregate_of_whoever_is_there(coordinator, planned, collected)

        def race(name: str, store=store, together=together, read=read, seen=seen, trial=trial) -> None:
            coordinator = answered.coordinator(store, tmp_path / f"{name}-{trial}")
            together.wait()
            read[name] = publish(coordinator, answered.planned, *seen[name])

        threads = [threading.Thread(target=race, args=(name,)) for name in seen]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert read["one"] == read["two"]
        assert len(read["one"].commit.updates) in (1, 2)


def aggregate_of_whoever_is_there(coordinator, planned, collected):
    """Without the quorum, which is not what is raced for."""
    return aggregate(coordinator, dataclasses.replace(planned, plan=planned.plan.model_copy(update={"quorum": 1})),
                     collected)


def test_the_loser_of_a_race_goes_on_with_what_was_committed(answered: Answered, undisturbed: dict[str, bytes]):
    """Round 3 starts from the committed model, whoever plans it."""
    store = answered.store()
    first = answered.commit(store)
    second = answered.commit(store)
    assert first == second
    assert plan_round(answered.coordinator(store), NextRoundRequest(run="spring")).plan.base_model == first.commit.model


def test_below_the_quorum_nothing_is_committed_and_the_second_try_counts_who_has_answered(federation: SmallFederation):
    planned = federation.plan()
    federation.answer("north", planned)
    before = objects(federation.coordinator.store)
    with pytest.raises(QuorumError, match=r"1 of 3 sites gave an update, the quorum is 2\. no answer 2: east, south\. "
                                          r"Nothing is committed\. .*run it again"):
        federation.commit(planned)
    assert objects(federation.coordinator.store) == before

    again = federation.plan()
    assert again.digest == planned.digest, "the same plan, so that north's answer counts"
    federation.answer("east", again)
    commit = federation.commit(again).commit
    assert {update.site for update in commit.updates} == {"north", "east"}
    assert commit.missing == ("south",)


def test_refusals_and_rejections_do_not_count_for_the_quorum(federation: SmallFederation):
    planned = federation.plan()
    for name in ("north", "east"):
        (federation.root / "data" / name / "train.parquet").unlink()
    assert [federation.answer(name, planned) for name in NAMES] == ["refusal", "refusal", "update"]
    with pytest.raises(QuorumError, match="refused 2"):
        federation.commit(planned)


def test_what_is_spooled_for_a_round_is_gone_when_it_is_committed(answered: Answered, tmp_path: Path):
    coordinator = answered.coordinator(answered.store(), tmp_path)
    answered.federation.commit(answered.planned, coordinator)
    assert not list((tmp_path / "spool").rglob("*.safetensors"))


def test_no_space_for_the_spool_is_one_sentence_and_nothing_is_lost(answered: Answered, tmp_path: Path):
    (tmp_path / "spool").write_text("a file where the folder should be")
    store = answered.store()
    before = objects(store)
    with pytest.raises(StoreError, match=r"cannot spool updates.*make room and run the round again"):
        answered.federation.commit(answered.planned, answered.coordinator(store, tmp_path))
    assert objects(store) == before


def test_a_committed_round_proves_itself(answered: Answered):
    store = answered.store()
    answered.commit(store)
    proofs = list(verify_run(store, "spring", answered.federation.coordinator.identity.key))
    assert [(proof.round, proof.updates, proof.refusals) for proof in proofs] == [
        (0, (), ()), (1, ("east", "north", "south"), ()), (2, ("east", "north"), ("south",))]
