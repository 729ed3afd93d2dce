"""A laptop restored from yesterday's backup: its ledger has forgotten what left. And clocks, which decide nothing."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import tasks.ledgers
from fedround import layout
from fedround.errors import ConflictError, SetupError, TrustError
from fedround.privacy import ledger
from fedround.privacy.ledger import Charge
from fedround.privacy.spec import GaussianCounts
from fedround.records import Answer, Reason, Refusal
from fedround.signing import Identity, seal, unseal
from infra.stores import publish
from site_workers import rollback
from site_workers.keys import begin_rotation
from site_workers.preflight import PreflightCheck, preflight
from site_workers.site import open_site
from tasks.ledgers import check
from tasks.membership import rotate_key
from tasks.verify import read_log, verify_run
from tests import small_federation
from tests.small_federation import SmallFederation


@pytest.fixture
def federation(tmp_path: Path, rows_are_judged_here: None) -> SmallFederation:
    """With budget for many rounds."""
    return small_federation.make(tmp_path, max_epsilon=80.0)


def back_up(federation: SmallFederation, name: str = "north") -> Path:
    return Path(shutil.copytree(federation.root / name, federation.root / f"{name}.backup"))


def restore(federation: SmallFederation, backup: Path, name: str = "north", only: str | None = None) -> None:
    """The whole folder, or one file of it."""
    if only is None:
        shutil.rmtree(federation.root / name)
        shutil.copytree(backup, federation.root / name)
    else:
        shutil.copyfile(backup / only, federation.root / name / only)


def refusal_of(federation: SmallFederation, number: int, name: str = "north") -> Refusal:
    key = layout.refusal(name, "spring", number, 1, "train", 1)
    return unseal(federation.coordinator.store.get(key), Refusal, federation.site(name).identity.key, name)


def test_a_folder_of_yesterday_refuses_with_its_own_reason_and_spends_nothing(federation: SmallFederation):
    federation.round()
    backup = back_up(federation)
    federation.round()
    restore(federation, backup)
    planned = federation.plan()
    assert federation.answer("north", planned) == "refusal"
    refusal = refusal_of(federation, 3)
    assert (refusal.reason, "restored from a backup" in refusal.detail) == (Reason.ROLLBACK, True)
    assert len(ledger.read(federation.site("north").ledger).charges) == 1


def test_its_process_does_not_start_and_says_what_to_do(federation: SmallFederation):
    federation.round()
    backup = back_up(federation)
    rollback.require_newest(federation.site("north"))
    federation.round("autumn")
    restore(federation, backup)
    with pytest.raises(SetupError, match=r"1 of its signed answers .*sites/north/autumn/.*newer copy.*fedround site recover"):
        rollback.require_newest(federation.site("north"))


def test_the_preflight_says_so_before_a_start_does(federation: SmallFederation):
    backup = back_up(federation)
    federation.round()

    def found() -> PreflightCheck:
        return next(finding for finding in preflight(federation.root / "north") if finding.check == "copy")

    assert found().ok
    restore(federation, backup)
    assert not found().ok
    assert "fedround site recover" in found().detail


def test_an_answer_that_only_a_commit_remembers_is_remembered(federation: SmallFederation):
    """Whoever runs the bucket hides the site's own answers from it."""
    backup = back_up(federation)
    federation.round()
    restore(federation, backup)
    shutil.rmtree(federation.root / "store" / "sites" / "north")
    assert federation.answer("north", federation.plan()) == "refusal"
    assert refusal_of(federation, 2).reason is Reason.ROLLBACK


def test_a_folder_that_forgets_its_answer_to_the_very_round_refuses(federation: SmallFederation):
    """Restored while its process runs, before anything of the round was committed."""
    backup, planned = back_up(federation), federation.plan()
    assert federation.answer("north", planned) == "update"
    restore(federation, backup)
    assert federation.answer("north", planned) == "refusal"
    assert refusal_of(federation, 1).reason is Reason.ROLLBACK
    assert ledger.read(federation.site("north").ledger).charges == ()


def test_the_newest_copy_goes_on(federation: SmallFederation):
    federation.round()
    restore(federation, back_up(federation))
    assert federation.answer("north", federation.plan()) == "update"


def test_foreign_bytes_below_its_prefix_are_no_answer_of_the_site(federation: SmallFederation):
    """Otherwise whoever runs the bucket could keep every site from answering."""
    federation.round()
    store, thief = federation.coordinator.store, Identity.generate()
    said = unseal(store.get(layout.answer("north", "spring", 1, 1, "train")), Answer,
                  federation.site("north").identity.key, "north")
    for number, body in ((7, b"junk"), (8, seal(said, thief)), (9, b"")):
        store.put_once(layout.answer("north", "spring", number, 1, "train"), body)
    store.put_once("sites/north/spring/rounds/answer.json", b"")
    assert federation.answer("north", federation.plan()) == "update"


def test_a_ledger_that_was_restored_alone_refuses(federation: SmallFederation):
    """Its outbox knows of every answer; the commit that the plan continues knows how long the ledger was."""
    backup = back_up(federation)
    federation.round()
    restore(federation, backup, only="ledger.jsonl")
    assert federation.answer("north", federation.plan()) == "refusal"
    assert refusal_of(federation, 2).reason is Reason.ROLLBACK


def test_a_ledger_that_was_restored_alone_and_grew_as_long_again_refuses_too(federation: SmallFederation):
    backup = back_up(federation)
    federation.round()
    restore(federation, backup, only="ledger.jsonl")
    site = federation.site("north")
    for number in (1, 2):
        ledger.charge(ledger.read(site.ledger), Charge(
            federation="small", run="autumn", round=number, purpose="train", plan=f"{number}" * 64, delta_dp=1e-5,
            mechanisms=(GaussianCounts(noise_std=9.0),), utc="2026-03-01T00:00:00Z"), 80.0)
    assert federation.answer("north", federation.plan()) == "refusal"
    assert refusal_of(federation, 2).reason is Reason.ROLLBACK


def test_a_ledger_that_was_restored_alone_is_seen_by_the_coordinator(federation: SmallFederation, monkeypatch):
    """The site's software does not look, or lies: an answer names how long its ledger is, and that only grows."""
    backup = back_up(federation)
    federation.round()
    restore(federation, backup, only="ledger.jsonl")
    monkeypatch.setattr(rollback, "refusal", lambda site, order: None)
    planned = federation.plan()
    for name in planned.plan.cohort:
        federation.answer(name, planned)
    collected = federation.collect(planned)
    assert set(collected.admitted) == {"east", "south"}
    assert "its ledger has 1 charge, and had 1 in an earlier round" in collected.rejected["north"].reason
    commit = federation.commit(planned).commit
    assert {known.site: known.charges for known in commit.ledgers} == {"east": 2, "north": 1, "south": 2}
    coordinator = federation.coordinator
    assert len(list(verify_run(coordinator.store, "spring", coordinator.identity.key))) == 3


def test_a_longer_ledger_is_one_that_grew(federation: SmallFederation):
    federation.round()
    federation.round("autumn")
    commit = federation.round()
    assert {known.charges for known in commit.ledgers} == {3}


def test_a_site_that_was_enrolled_anew_begins_a_new_ledger(federation: SmallFederation):
    """Its disk was lost: another folder, another key. The old key's ledger says nothing about it."""
    federation.round()
    planned = federation.plan()
    for name in planned.plan.cohort:
        federation.answer(name, planned)
    answer = federation.collect(planned).admitted["north"].answer
    member = federation.coordinator.federation.site("north")
    shorter = answer.model_copy(update={"charges": 1})
    log = read_log(federation.coordinator.store, federation.coordinator.identity.key)
    with pytest.raises(TrustError, match="restored from a backup"):
        check(planned.parent.commit, shorter, member, log)
    check(planned.parent.commit, shorter, member.model_copy(update={"key": Identity.generate().key}), log)


def test_a_ledger_that_shrinks_while_its_key_rotates_is_seen_by_the_coordinator_and_by_the_auditor(
        federation: SmallFederation, monkeypatch):
    """One ledger goes with all keys that handed over to each other."""
    backup = back_up(federation)
    federation.round()
    begin_rotation(federation.site("north"), None)
    rotate_key(federation.root / "coordinator", "north")
    restore(federation, backup, only="ledger.jsonl")
    monkeypatch.setattr(rollback, "refusal", lambda site, order: None)
    planned = federation.plan()
    for name in planned.plan.cohort:
        federation.answer(name, planned)
    assert "restored from a backup" in federation.collect(planned).rejected["north"].reason
    with monkeypatch.context() as patch:
        patch.setattr(tasks.ledgers, "check", lambda *_: None)
        federation.commit(planned)
    coordinator = federation.coordinator
    with pytest.raises(TrustError, match="the ledger of 'north' has not grown"):
        list(verify_run(coordinator.store, "spring", coordinator.identity.key))


def test_an_accepted_object_is_not_overwritten(federation: SmallFederation):
    """Neither by its site nor by anybody who uses the store as it is meant."""
    federation.round()
    store = federation.coordinator.store
    for key in (layout.answer("north", "spring", 1, 1, "train"), layout.delta("north", "spring", 1, 1),
                layout.commit("spring", 1), layout.log_entry(1)):
        before = store.get(key)
        assert store.put_once(key, b"other") is False
        with pytest.raises(ConflictError, match="written once and never replaced"):
            publish(store, key, b"other")
        assert store.get(key) == before


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_that_is_a_day_off_changes_nothing(federation: SmallFederation, tmp_path: Path, days: int):
    other = federation.copy(tmp_path / "other")
    expected = federation.round()
    planned = other.plan()
    for name in planned.plan.cohort:
        site = open_site(other.root / name, clock=lambda: datetime.now(UTC) + timedelta(days=days))
        assert other.answer(name, planned, site) == "update"
    commit = other.commit(planned).commit
    assert (commit.model, commit.plan) == (expected.model, expected.plan)
    assert [update.payload for update in commit.updates] == [update.payload for update in expected.updates]
    written = [json.loads(line)["charge"]["utc"][:10]
               for line in (other.root / "north" / "ledger.jsonl").read_text().splitlines()[1:]]
    assert written == [(datetime.now(UTC) + timedelta(days=days)).strftime("%Y-%m-%d")], "the clock was a day off"
