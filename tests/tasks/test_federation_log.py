"""The federation log: every change of the federation file is an entry; keys change as the old key or a revocation says."""

from __future__ import annotations

import dataclasses
import json

import pytest

from fedround import layout
from fedround.errors import ChainError, ContractError, SignatureError, TrustError
from fedround.federation import Federation
from fedround.federation_log import (
    Departed,
    Enrolled,
    LogBegun,
    LogEntry,
    Resized,
    Revoked,
    Reweighed,
    Rotated,
    Rotation,
    SettingsChanged,
    in_words,
)
from fedround.records import Answer, LogHead
from fedround.signing import Identity, digest, seal, sign, unseal
from fedround.values import as_read, canonical, parse
from infra.federation_log import extend, length, read_rotation, read_up_to
from infra.stores import MemoryStore
from site_workers.keys import begin_rotation
from tasks.membership import add_member, revoke_key, rotate_key
from tasks.verify import read_log, verify_run
from tests import small_federation
from tests.small_federation import NAMES, SmallFederation
from tests.tasks.conftest import Answered, objects
from tests.tasks.test_membership import enrol


def edit(federation: SmallFederation, old: str, new: str) -> None:
    path = federation.root / "coordinator" / "federation.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def last(federation: SmallFederation) -> tuple:
    """What the newest entry says."""
    coordinator = federation.coordinator
    coordinator.publish_federation()
    return read_log(coordinator.store, coordinator.identity.key)[-1].entry.changes


def folder(federation: SmallFederation):
    return federation.root / "coordinator"


def test_it_begins_with_everybody_and_stays_as_it_is_while_nothing_changes(federation: SmallFederation):
    changes = last(federation)
    assert isinstance(changes[0], LogBegun)
    assert [change.site for change in changes[1:]] == list(NAMES)
    federation.plan()
    federation.plan()
    assert length(federation.coordinator.store, federation.coordinator.identity.key) == 1


def test_a_later_version_that_knows_more_settings_leaves_the_file_in_force_that_says_the_same(federation: SmallFederation):
    """Every upgrade that brought a setting ended in a traceback: other bytes, and no change to write down."""
    coordinator = federation.coordinator
    older = parse(Federation, {name: value for name, value in json.loads(canonical(coordinator.federation)).items()
                               if name not in ("partitions", "incentive")}, "an older version's")
    body = as_read(older)
    assert len(body) < len(canonical(coordinator.federation))
    signature = coordinator.identity.sign(b"fedround/1/federation\n" + body).hex()
    document = b'{"body":%b,"key":"%b","kind":"federation","signature":"%b"}' % (
        body, coordinator.identity.key.encode(), signature.encode())
    assert extend(coordinator.store, coordinator.identity, coordinator.federation, document).head.number == 1
    plan = federation.plan().plan
    assert plan.federation_digest == digest(document)
    assert all(federation.answer(site, federation.plan()) == "update" for site in NAMES)
    federation.commit(federation.plan())
    assert length(coordinator.store, coordinator.identity.key) == 1
    edit(federation, "deadline_s = 60", "deadline_s = 61")
    federation.plan()
    assert length(coordinator.store, coordinator.identity.key) == 2
    assert len(list(verify_run(coordinator.store, "spring", coordinator.identity.key))) == 2


def test_every_plan_names_the_entry_that_holds(federation: SmallFederation):
    first = federation.plan().plan
    edit(federation, "deadline_s = 60", "deadline_s = 61")
    second = federation.plan().plan
    log = read_log(federation.coordinator.store, federation.coordinator.identity.key)
    assert [(plan.log.number, plan.log.digest, plan.federation_digest) for plan in (first, second)] == [
        (logged.entry.number, logged.digest, logged.entry.federation_digest) for logged in log]
    assert log[1].entry.changes == (SettingsChanged(keys=("deadline_s",)),)


def test_every_kind_of_change_is_said_in_words(federation: SmallFederation):
    last(federation)
    south = federation.site("south").identity.key
    edit(federation, "weight = 300.0", "weight = 250.0")
    assert last(federation) == (Reweighed(site="north", weight=250.0),)
    edit(federation, "weight = 250.0", "weight = 250.0\nrows = 240")
    assert last(federation) == (Resized(site="north", rows=240),)
    edit(federation, "\nrows = 240", "")
    assert last(federation) == (Resized(site="north", rows=None),)
    path = folder(federation) / "federation.toml"
    text = path.read_text()
    head, *members = text.split("[[sites]]")
    path.write_text(head + "".join(f"[[sites]]{member}" for member in members if '"south"' not in member))
    assert last(federation) == (Departed(site="south", key=south),)
    path.write_text(text)
    assert last(federation) == (Enrolled(site="south", key=south, weight=150.0),)
    log = read_log(federation.coordinator.store, federation.coordinator.identity.key)
    assert all(len(in_words(change)) > 15 for logged in log for change in logged.entry.changes)


def test_a_key_that_changes_without_a_word_of_the_old_one_stops_every_plan(federation: SmallFederation):
    federation.plan()
    edit(federation, federation.site("north").identity.key, Identity.generate().key)
    with pytest.raises(TrustError, match=r"the key of 'north' changed and its old key did not sign.*federation revoke"):
        federation.plan()
    assert length(federation.coordinator.store, federation.coordinator.identity.key) == 1


def test_a_member_is_enrolled_while_a_campaign_runs_and_no_process_starts_again(federation: SmallFederation):
    """The sites' processes and the campaign's go on; only the file is read again."""
    sites = {name: federation.site(name) for name in NAMES}
    federation.round()
    enrol(federation, "west", 120.0)
    planned = federation.plan()
    assert planned.plan.log.number == 2
    assert last(federation)[0].kind == "enrol"
    for name in NAMES:
        assert federation.answer(name, planned, sites[name]) == "update"
    assert federation.answer("west", planned) == "update"
    assert [update.site for update in federation.commit(planned).commit.updates] == ["east", "north", "south", "west"]


# -- rotation ----------------------------------------------------------------------------------------------------------


def test_a_key_is_rotated_while_a_campaign_runs_and_no_process_starts_again(tmp_path, rows_are_judged_here: None):
    federation = small_federation.make(tmp_path, max_epsilon=80.0)
    running = federation.site("north")
    federation.round()
    old, new = running.identity.key, begin_rotation(running, None)
    assert federation.answer("north", federation.plan(), running) == "update", "until the log has it, the old key signs"
    assert rotate_key(folder(federation), "north") == new
    planned = federation.plan()
    assert [federation.answer(name, planned, running if name == "north" else None) for name in NAMES] == ["update"] * 3
    assert len(federation.commit(planned).commit.updates) == 3
    (rotated,) = last(federation)
    assert (rotated.site, rotated.old, rotated.new) == ("north", old, new)
    assert federation.site("north").identity.key == new
    assert not (federation.root / "north" / "keys" / "next.pem").exists()
    assert federation.answer("north", federation.plan(), running) == "update"      # the process that began with the old key
    coordinator = federation.coordinator
    assert [proof.log for proof in verify_run(coordinator.store, "spring", coordinator.identity.key)] == [1, 1, 2]


def test_asked_twice_a_site_names_one_key(federation: SmallFederation):
    assert begin_rotation(federation.site("north"), None) == begin_rotation(federation.site("north"), None)


def test_a_successor_that_the_old_key_does_not_name_is_not_taken(federation: SmallFederation):
    federation.plan()
    mine, stranger = Identity.generate(), Identity.generate()
    said = Rotation(federation="small", site="north", old=federation.site("north").identity.key, new=mine.key)
    federation.coordinator.store.put_once(layout.rotation("north", mine.key), seal(said, stranger))
    with pytest.raises(ContractError, match="has named no new key"):
        rotate_key(folder(federation), "north")


def test_a_handover_that_lies_under_another_keys_name_is_not_read(federation: SmallFederation):
    store, north = federation.coordinator.store, federation.site("north").identity
    named, other = Identity.generate().key, Identity.generate().key
    said = Rotation(federation="small", site="north", old=north.key, new=named)
    store.put_once(layout.rotation("north", other), seal(said, north))
    with pytest.raises(SignatureError, match="names another key there"):
        read_rotation(store, "north", north.key, other)


def test_two_successors_are_a_question_for_the_telephone(federation: SmallFederation):
    """A thief with the present key can name one as well."""
    federation.plan()
    site, thief = federation.site("north"), Identity.generate()
    own = begin_rotation(site, None)
    said = Rotation(federation="small", site="north", old=site.identity.key, new=thief.key)
    federation.coordinator.store.put_once(layout.rotation("north", thief.key), seal(said, site.identity))
    with pytest.raises(ContractError, match="has named 2 new keys"):
        rotate_key(folder(federation), "north")
    assert rotate_key(folder(federation), "north", own) == own


# -- revocation --------------------------------------------------------------------------------------------------------


def test_what_a_revoked_key_signed_before_still_proves_and_is_marked(federation: SmallFederation):
    federation.round()
    key = revoke_key(folder(federation), "south")
    assert last(federation) == (Revoked(site="south", key=key),)
    commit = federation.round(sites=("north", "east"))
    assert commit.missing == ()
    coordinator = federation.coordinator
    proofs = list(verify_run(coordinator.store, "spring", coordinator.identity.key))
    assert [proof.revoked_since for proof in proofs] == [(), ("south",), ()]


def test_a_revoked_key_is_told_so_and_answers_nothing(federation: SmallFederation):
    federation.round()
    revoke_key(folder(federation), "south")
    planned = federation.plan()
    with pytest.raises(TrustError, match="the key of 'south' was revoked"):
        federation.answer("south", planned)


def test_what_a_thief_signs_with_it_afterwards_is_rejected_for_that_reason(federation: SmallFederation):
    """The site is a member again, with a new key; the old one still writes below its prefix."""
    federation.round()
    old = federation.site("south")
    revoke_key(folder(federation), "south")
    add_member(folder(federation), "south", Identity.generate().key, 150.0)
    planned = federation.plan()
    federation.answer("north", planned)
    said = unseal(federation.coordinator.store.get(layout.answer("north", "spring", 2, 1, "train")), Answer,
                  federation.site("north").identity.key, "north")
    federation.coordinator.store.put_once(
        layout.answer("south", "spring", 2, 1, "train"),
        seal(said.model_copy(update={"site": "south"}), old.identity))
    assert "signed by a key that was revoked" in federation.collect(planned).rejected["south"].reason


def test_a_revoked_key_never_comes_back(federation: SmallFederation):
    federation.plan()
    key = revoke_key(folder(federation), "south")
    last(federation)
    with pytest.raises(ContractError, match="was revoked: enrol the site with a new one"):
        add_member(folder(federation), "south", key, 150.0)
    edit(federation, f'revoked = ["{key}"]\n', "")
    with pytest.raises(ChainError, match="a key that was revoked stays"):
        federation.plan()


def test_a_site_comes_back_with_a_new_key(federation: SmallFederation):
    """Revoked and enrolled again between two rounds: one entry says both."""
    federation.round()
    old, new = revoke_key(folder(federation), "south"), Identity.generate().key
    add_member(folder(federation), "south", new, 150.0)
    assert last(federation) == (Revoked(site="south", key=old), Enrolled(site="south", key=new, weight=150.0))


def test_a_federation_that_cannot_be_without_the_site_says_so_and_is_left_as_it_was(federation: SmallFederation):
    edit(federation, "quorum = 2", "quorum = 3")
    before = (folder(federation) / "federation.toml").read_bytes()
    with pytest.raises(ContractError, match="quorum 3 can never be met by 2 sites"):
        revoke_key(folder(federation), "south")
    assert (folder(federation) / "federation.toml").read_bytes() == before
    revoke_key(folder(federation), "south", quorum=2)
    assert len(federation.coordinator.federation.sites) == 2


def test_nobody_is_revoked_who_is_no_member(federation: SmallFederation):
    with pytest.raises(ContractError, match="has no site 'west'"):
        revoke_key(folder(federation), "west")


# -- a coordinator who writes what no log may say ----------------------------------------------------------------------


def entry_two(answered: Answered, **changes: object) -> MemoryStore:
    """A store whose log goes on with an entry of the coordinator's own making."""
    coordinator, store = answered.coordinator(answered.store()), answered.store()
    head = read_log(store, coordinator.identity.key)[-1]
    entry = LogEntry(**{
        "federation": "small", "number": 2, "previous": head.digest, "federation_digest": head.entry.federation_digest,
        "changes": (SettingsChanged(keys=("quorum",)),), "tool_version": "0.1.0", **changes})
    store.put_once(layout.log_entry(2), seal(entry, coordinator.identity))
    return store


@pytest.mark.parametrize(("changes", "says"), [
    ({}, "changes something else than the entry says"), ({"previous": "0" * 64}, "does not continue entry 1"),
    ({"number": 3}, "does not continue entry 1"), ({"federation": "other"}, "does not continue entry 1"),
    ({"federation_digest": "0" * 64}, "is not in the store")],
    ids=["an empty change", "another predecessor", "a gap", "another federation", "no file"])
def test_an_entry_that_does_not_follow_is_not_believed(answered: Answered, changes: dict, says: str):
    with pytest.raises(ChainError, match=says):
        read_log(entry_two(answered, **changes), answered.federation.coordinator.identity.key)


def without(store: MemoryStore, left_out: str) -> MemoryStore:
    """A copy that lacks one object."""
    kept = MemoryStore()
    for key in objects(store):
        if key != left_out:
            kept.put_once(key, store.get(key, max_bytes=10_000_000))
    return kept


def test_an_entry_that_was_taken_out_of_the_store_is_missed(answered: Answered):
    store, identity = entry_two(answered), answered.federation.coordinator.identity
    second = unseal(store.get(layout.log_entry(2), max_bytes=10_000), LogEntry, identity.key, "entry 2")
    store.put_once(layout.log_entry(3), seal(second.model_copy(update={"number": 3}), identity))
    with pytest.raises(ChainError, match="entry 2 of the federation log: is not in the store"):
        read_log(without(store, layout.log_entry(2)), answered.federation.coordinator.identity.key)


def test_a_federation_file_in_another_ones_place_is_not_believed(answered: Answered):
    """By the coordinator's own hand, and of the same name: only the entry says which one holds."""
    coordinator, store = answered.federation.coordinator, answered.store()
    named = layout.federation(read_log(store, coordinator.identity.key)[-1].entry.federation_digest)
    changed = without(store, named)
    changed.put_once(named, seal(coordinator.federation.model_copy(update={"quorum": 1}), coordinator.identity))
    with pytest.raises(TrustError, match="federation file of entry .* the stored bytes are not those that the history names"):
        read_log(changed, coordinator.identity.key)


@pytest.mark.parametrize("another", [{"name": "other"}, {"coordinator": Identity.generate().key}], ids=lambda value: next(
    iter(value)))
def test_a_federation_keeps_its_name_and_its_coordinators_key(answered: Answered, another: dict):
    """Budgets are for a federation by name, and every signature is by that key."""
    coordinator = answered.federation.coordinator
    changed = coordinator.federation.model_copy(update=another)
    document = seal(changed, coordinator.identity)
    store = entry_two(answered, federation=changed.name, federation_digest=digest(document),
                      changes=(SettingsChanged(keys=tuple(another)),))
    store.put_once(layout.federation(digest(document)), document)
    with pytest.raises(ChainError, match="its name and its coordinator's key never change"):
        read_log(store, coordinator.identity.key)


def test_a_change_of_key_in_an_entry_needs_the_old_keys_signature(answered: Answered):
    """The coordinator takes a site's place, with a good entry, a good file and a signature of its own."""
    coordinator, thief = answered.federation.coordinator, Identity.generate()
    federation = coordinator.federation
    north = federation.site("north")
    stolen = federation.model_copy(update={"sites": tuple(
        site.model_copy(update={"key": thief.key}) if site.name == "north" else site for site in federation.sites)})
    document = seal(stolen, coordinator.identity)
    said = Rotation(federation="small", site="north", old=north.key, new=thief.key)
    forged = Rotated(site="north", old=north.key, new=thief.key, signature=sign(said, thief))
    store = entry_two(answered, federation_digest=digest(document), changes=(forged,))
    store.put_once(layout.federation(digest(document)), document)
    with pytest.raises(TrustError, match="its old key did not sign for that"):
        read_log(store, coordinator.identity.key)


def test_a_plan_that_names_another_log_than_the_stores_is_not_believed(answered: Answered):
    """A site reads the log up to the entry that its plan names: one coordinator with two logs shows here."""
    store, key = answered.store(), answered.federation.coordinator.identity.key
    head = read_log(store, key)[-1].head
    assert read_up_to(store, key, head, "the plan")[-1].head == head
    with pytest.raises(ChainError, match="the plan: names another entry 1 .* there are two logs"):
        read_up_to(store, key, LogHead(number=head.number, digest="0" * 64), "the plan")


def test_of_two_who_extend_it_one_is_first_and_both_name_the_same_head(answered: Answered):
    store = MemoryStore()
    heads = {answered.coordinator(store).publish_federation().head for _ in range(3)}
    assert len(heads) == 1
    assert [key for key in objects(store) if key.startswith("log/")] == ["log/00001.json"]


def test_a_log_of_another_coordinator_is_not_continued(answered: Answered):
    stranger = Identity.generate()
    ours = answered.federation.coordinator
    theirs = dataclasses.replace(ours, store=answered.store(), identity=stranger,
                                 federation=ours.federation.model_copy(update={"coordinator": stranger.key}))
    with pytest.raises(TrustError, match="signed by another key"):
        theirs.publish_federation()
