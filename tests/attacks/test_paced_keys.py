"""A ticket is open, and its member's key is revoked or rotated, or its folder comes from a backup: what it answered late
counts once or not at all, and is charged once.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fedround.errors import ChainError, TrustError
from fedround.privacy import ledger
from infra.history import read_commit
from site_workers import audit, recover, release, rollback
from site_workers.keys import begin_rotation
from tasks.membership import revoke_key, rotate_key
from tasks.plan import Planned
from tests import paced
from tests.attacks.test_rollback import back_up, restore
from tests.paced import RUN, said, turn
from tests.small_federation import SmallFederation

LATE = "elm"


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    return paced.make(tmp_path_factory.mktemp("five"), max_age=2)


@pytest.fixture
def federation(begun: SmallFederation, tmp_path: Path) -> SmallFederation:
    return begun.copy(tmp_path / "one")


def charged(world: SmallFederation) -> list[int]:
    """The rounds of the plans that 'elm' has paid for."""
    return [charge.round for charge in ledger.read(world.site(LATE).ledger).charges]


def counted(world: SmallFederation) -> list[tuple[int, int | None]]:
    """In which rounds an answer of 'elm' counts, and to which round's plan, if not to theirs."""
    key, number, found = world.coordinator.identity.key, 1, []
    while (number := number + 1) and world.coordinator.store.head(f"runs/{RUN}/rounds/{number:05d}/commit.json") is not None:
        commit = read_commit(world.coordinator.store, RUN, number, key).commit
        found += [(number, update.ticket) for update in commit.updates if update.site == LATE]
    return found


@pytest.mark.parametrize("answered_before", [True, False])
def test_a_late_answer_of_a_revoked_key_counts_in_no_round(federation: SmallFederation, answered_before: bool):
    """Also one that it puts into the store by itself afterwards, with the key that it still has."""
    second = federation.plan(RUN)
    first = second.of(LATE)
    aside = federation.copy(federation.root.parent / "aside")
    aside.answer(LATE, first)
    if answered_before:
        federation.answer(LATE, first)
    revoke_key(federation.root / "coordinator", LATE)
    again = federation.plan(RUN)
    assert (again.plan.tickets, LATE in again.plan.answering) == ((), False)
    with pytest.raises(TrustError, match="was revoked"):
        federation.answer(LATE, again)
    if not answered_before:
        shutil.copytree(said(aside, LATE, first).parent, said(federation, LATE, first).parent)
    for name in ("ash", "birch", "cedar"):
        federation.answer(name, again)
    federation.commit(again)
    turn(federation, "ash", "birch")
    assert counted(federation) == []
    assert charged(federation) == ([1] if answered_before else [])
    assert len(federation.proofs()) == 4


def test_a_rotated_key_ends_the_ticket_and_what_the_old_key_signed_counts_no_more(federation: SmallFederation):
    """It was asked before, answers afterwards: nothing is charged. With its new key it answers the new plan."""
    first = federation.plan(RUN).of(LATE)
    begin_rotation(federation.site(LATE), None)
    rotate_key(federation.root / "coordinator", LATE)
    second = federation.plan(RUN)
    assert second.plan.tickets == ()
    for name in ("ash", "birch", LATE):
        federation.answer(name, second)
    federation.commit(second)
    with pytest.raises(ChainError, match="to a question that is over"):
        federation.answer(LATE, first)
    assert (charged(federation), counted(federation)) == ([2], [(2, None)])
    turn(federation, "ash", "birch")
    assert len(federation.proofs()) == 4


def test_an_answer_that_the_old_key_signed_before_it_was_rotated_is_paid_once_and_counts_no_more(federation: SmallFederation):
    first = federation.plan(RUN).of(LATE)
    federation.answer(LATE, first)
    begin_rotation(federation.site(LATE), None)
    rotate_key(federation.root / "coordinator", LATE)
    turn(federation, "ash", "birch", LATE)
    turn(federation, "ash", "birch")
    assert (charged(federation), counted(federation)) == ([1, 2], [(2, None)])
    assert len(federation.proofs()) == 4


def late_and_recovered(federation: SmallFederation) -> tuple[Planned, bytes]:
    """The member answers the first plan late; then its folder is that of before, and it is recovered. Its answer."""
    second = federation.plan(RUN)
    first, backup = second.of(LATE), back_up(federation, LATE)
    federation.answer(LATE, first)
    sent = said(federation, LATE, first).read_bytes()
    restore(federation, backup, LATE)
    return second, sent


def test_a_folder_from_before_a_late_answer_knows_it_again_and_it_counts_once(federation: SmallFederation):
    second, sent = late_and_recovered(federation)
    first, site = second.of(LATE), federation.site(LATE)
    recover.restore(site, recover.forgotten(site))
    assert charged(federation) == [1]
    assert federation.answer(LATE, first) == "answered before; the same bytes were sent again"
    assert said(federation, LATE, first).read_bytes() == sent
    for name in ("ash", "birch"):
        federation.answer(name, second)
    federation.commit(second)
    assert counted(federation) == [(2, 1)]
    third = turn(federation, "ash", "birch", LATE)
    assert LATE in third.plan.cohort
    assert (charged(federation), counted(federation)) == ([1, 3], [(2, 1), (3, None)])
    assert len(federation.proofs()) == 4
    audit.verify(federation.site(LATE).safe)
    rollback.require_newest(federation.site(LATE))
    assert release.resend(federation.site(LATE)) == 0


def test_a_folder_from_before_a_late_answer_that_is_not_recovered_answers_nothing_new(federation: SmallFederation):
    """Other noise for the same ticket would be a second release that nobody counted."""
    second, sent = late_and_recovered(federation)
    first = second.of(LATE)
    assert federation.answer(LATE, first) == "refusal"
    assert said(federation, LATE, first).read_bytes() == sent
    assert charged(federation) == []
    for name in ("ash", "birch"):
        federation.answer(name, second)
    federation.commit(second)
    assert counted(federation) == [(2, 1)], "its answer lies in the store, under its signature"
    third = federation.plan(RUN)
    assert federation.answer(LATE, third) == "refusal", "the commit names a charge that this ledger does not have"
