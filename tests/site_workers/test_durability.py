"""What a site promises to remember is on the disk, name and all, before it goes on."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from fedround.records import LogHead
from fedround.signing import Identity
from infra.settings import SiteSettings, load_toml
from site_workers import approval, outbox, seen
from site_workers.keys import agreed_identity, begin_rotation
from tests.disk import is_durable, watched
from tests.small_federation import RECIPE, SmallFederation

UPDATE = (b'{"body":{"asked":"train","plan":"0","site":"north","update":{"mechanism":{"kind":"none"},'
          b'"payload":{"sha256":"0","size_bytes":7}}},"kind":"answer"}')


def test_what_was_seen_is_durable(tmp_path: Path):
    new = seen.Seen().after(LogHead(number=1, digest="0" * 64), "spring", seen.SeenCommit(round=0, digest="1" * 64))
    with watched() as happened:
        seen.write(tmp_path, new)
    assert is_durable(happened, tmp_path / "seen.json")
    assert seen.read(tmp_path) == new


def test_an_approval_is_durable_and_what_it_displaces_too(federation: SmallFederation):
    folder = federation.root / "north"
    settings = load_toml(SiteSettings, folder / "site.toml")
    candidate = approval.examine("recipe", RECIPE.replace("tiny", "other").encode(), "a recipe")
    with watched() as happened:
        approval.approve(folder, settings, candidate, datetime.now(UTC))
    earlier = next((folder / "approved" / "earlier").iterdir())
    for path in (folder / "policy.toml", folder / settings.recipe, earlier):
        assert is_durable(happened, path)
    assert ("synced", folder / "approved") in happened      # the new folder's name


def test_a_private_key_is_durable(tmp_path: Path):
    with watched() as happened:
        Identity.generate().save(tmp_path / "identity.pem")
    assert [path.name.startswith(".identity.pem.") for _, path in happened] == [True, False]
    assert happened[-1] == ("synced", tmp_path)


def test_an_answer_and_every_folder_above_it_are_durable_before_they_leave(federation: SmallFederation):
    planned, folder = federation.plan(), federation.root / "north"
    plan = planned.plan
    with watched() as happened:
        entry = outbox.write(federation.site("north").safe, plan, UPDATE, b"tensors")
    place = entry.folder
    temporary = next(path.parent for what, path in happened if what == "named" and path.name == "answer.json")
    assert is_durable(happened, temporary / "answer.json")
    assert is_durable(happened, temporary / "delta.safetensors")
    assert happened[-1] == ("synced", place.parent)
    above = [path for path in place.parents if path.is_relative_to(folder / "outbox")]
    assert {path.parent for path in above[:-1]} <= {path for what, path in happened if what == "synced"}


def test_that_an_answer_has_arrived_is_durable_before_its_tensors_go(federation: SmallFederation):
    entry = outbox.write(federation.site("north").safe, federation.plan().plan, UPDATE, b"tensors")
    tensors = entry.payload
    assert tensors is not None
    with watched() as happened:
        entry.mark_sent()
    assert ("synced", entry.folder) in happened
    assert not tensors.exists()


def test_a_new_key_has_its_place_before_the_noise_secret_that_waits_for_it(federation: SmallFederation):
    """After a power cut between the two, the old key with the new passphrase's secret would open nothing."""
    site = federation.site("north")
    new, folder = begin_rotation(site, None), site.folder / "keys"
    with watched() as happened:
        agreed_identity(site, new)
    assert happened == [("named", folder / "identity.pem"), ("synced", folder),
                        ("named", folder / "noise.key"), ("synced", folder)]
