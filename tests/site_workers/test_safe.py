"""What a site keeps lies encrypted on its disk if, and only if, its key has a passphrase."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fedround import locked
from fedround.errors import ContractError, SetupError, StoreError
from infra.passphrase import FILE_VARIABLE
from site_workers import audit, kept, outbox, recover, release, safe, service
from site_workers.keys import begin_rotation
from site_workers.safe import Safe
from tasks.membership import rotate_key
from tests import small_federation
from tests.small_federation import SmallFederation

WORDS, OTHERS = b"four quite long words", b"four quite other words"
PERSONAL = {"personal": {"name": "ditto", "pull": 0.1}}
SEALED = b"FEDROUND SEALED aes-256-gcm 1\n"
SECRET, BODY = bytes(range(32)), b"numbers that were learnt from rows" * 3


@pytest.fixture
def one(tmp_path: Path) -> Safe:
    return Safe(tmp_path, SECRET, True)


@pytest.fixture
def types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Somebody types a passphrase: from now on it is the one."""
    path = tmp_path / "words"

    def type_(words: bytes) -> None:
        path.write_bytes(words)
        path.chmod(0o600)
        monkeypatch.setenv(FILE_VARIABLE, str(path))

    return type_


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 48], ids=str)
def test_what_is_sealed_comes_back_in_as_many_blocks_as_it_needs(one: Safe, monkeypatch, size: int):
    monkeypatch.setattr(safe, "_BLOCK", 16)
    one.write(one.folder / "a", BODY[:size])
    assert one.read(one.folder / "a") == BODY[:size]
    assert size < 8 or BODY[:8] not in (one.folder / "a").read_bytes()
    assert (one.folder / "a").stat().st_mode & 0o777 == 0o600


def test_attack_every_flipped_byte_every_cut_and_every_swap_is_one_sentence(one: Safe, monkeypatch):
    monkeypatch.setattr(safe, "_BLOCK", 40)
    path, other = one.folder / "a", one.folder / "b"
    one.write(path, BODY)
    whole = path.read_bytes()
    blocks = [whole[30 + at:30 + at + 68] for at in range(0, len(whole) - 30, 68)]
    wrong = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:] for at in range(len(whole))]
    wrong += [whole[:at] for at in range(len(whole))]
    wrong += [whole + b"x", BODY]
    wrong += [whole[:30] + b"".join(some) for some in ([blocks[1], blocks[0], *blocks[2:]], blocks[:2])]
    for body in wrong:
        path.write_bytes(body)
        with pytest.raises(SetupError, match=r"does not open|is damaged, or not encrypted"):
            one.read(path)
    other.write_bytes(whole)
    with pytest.raises(SetupError, match="altered, moved, or encrypted at another site"):
        one.read(other)
    path.write_bytes(whole)
    with pytest.raises(SetupError, match="does not open"):
        Safe(one.folder, SECRET[::-1], True).read(path)
    assert one.read(path) == Safe(one.folder, SECRET, False).read(path) == BODY


def test_a_sealed_file_is_never_written_twice_alike(one: Safe):
    one.write(one.folder / "a", BODY)
    first = (one.folder / "a").read_bytes()
    one.write(one.folder / "a", BODY)
    assert (one.folder / "a").read_bytes() != first


def kept_files(federation: SmallFederation) -> list[Path]:
    return sorted((federation.root / "north" / "kept").glob("*/*/*.safetensors"))


def test_a_site_under_a_passphrase_keeps_nothing_readable_and_answers_as_ever(tmp_path: Path, types,
                                                                                rows_are_judged_here: None):
    types(WORDS)
    federation = small_federation.make(tmp_path / "f", names=("north",), quorum=1, passphrase=WORDS, **PERSONAL)
    running = federation.site("north")
    for _ in range(2):
        planned = federation.plan()
        assert federation.answer("north", planned, running) == "update"
        assert federation.answer("north", planned, running) == "answered before; the same bytes were sent again"
        federation.commit(planned)
    assert kept_files(federation)
    answers = sorted((running.folder / "outbox").rglob("answer.json"))
    assert len(answers) == 2
    for path in (*kept_files(federation), *answers):
        assert path.read_bytes().startswith(SEALED)
    assert len(audit.verify(running.safe)) > 8
    log = running.folder / "audit.jsonl"
    log.unlink()
    audit.begin(running.safe, "north", running.clock(), running.ledger)
    audit.verify(running.safe)
    path, other = answers
    path.write_bytes(other.read_bytes())
    for look in (lambda: audit.verify(running.safe), lambda: recover.forgotten(running)):
        with pytest.raises(ContractError, match="is damaged: it is not the answer that this site kept"):
            look()
    key = federation.root / "north" / "keys" / "noise.key"
    assert key.read_bytes().startswith(locked.BEGIN)
    types(OTHERS)
    with pytest.raises(SetupError, match=r"identity\.pem: the passphrase does not open"):
        federation.site("north")


def test_killed_before_the_upload_the_same_tensors_leave_as_they_were_and_an_altered_file_never_does(
        tmp_path: Path, types, monkeypatch, rows_are_judged_here: None):
    types(WORDS)
    federation = small_federation.make(tmp_path / "f", names=("north",), quorum=1, passphrase=WORDS)
    site, made = federation.site("north"), []
    with monkeypatch.context() as patch:
        patch.setattr(release, "send", lambda _, entry: made.append(entry))
        federation.answer("north", federation.plan(), site)
    entry, path = made[0], made[0].folder / "delta.safetensors"
    body = entry.payload
    assert path.read_bytes().startswith(SEALED)
    assert body not in path.read_bytes()
    assert entry.answer not in (entry.folder / "answer.json").read_bytes()
    assert str(site.noise_secret) not in f"{entry} {site}"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(SetupError, match="does not open: it was altered"):
        service._send_what_is_unsent(site)
    path.write_bytes(body[::-1])
    with pytest.raises(StoreError, match="not the expected one, and nothing was stored"):
        release.resend(site)
    path.write_bytes(whole)
    service._send_what_is_unsent(federation.site("north"))
    store = federation.root / "store"
    assert [(store / key).read_bytes() for key in (entry.payload_key, entry.answer_key)] == [body, entry.answer]
    assert not path.exists()


def test_what_waited_in_the_outbox_before_there_was_a_passphrase_is_encrypted_at_the_next_start(one: Safe):
    folder = one.folder / "outbox" / "spring" / "train" / "00001" / "01"
    folder.mkdir(parents=True)
    there = {folder / "answer.json": b"{}", folder / "delta.safetensors": BODY}
    for path, body in there.items():
        path.write_bytes(body)
        assert one.read_signed(path) == body, "a command between the two reads it as it is"
    outbox.settle(one)
    for path, body in there.items():
        assert path.read_bytes().startswith(SEALED)
        assert one.read_signed(path) == Safe(one.folder, SECRET, False).read_signed(path) == body


def test_a_passphrase_comes_and_goes_with_a_new_key(tmp_path: Path, types, rows_are_judged_here: None):
    federation = small_federation.make(tmp_path / "f", names=("north",), quorum=1, **PERSONAL)
    federation.round()
    site = federation.site("north")
    assert not site.is_locked
    types(WORDS)
    begin_rotation(site, WORDS)
    rotate_key(federation.root / "coordinator", "north")
    assert not federation.site("north").is_locked      # a start before the next key is taken needs what it needed before
    federation.round()
    again = federation.site("north")
    assert again.is_locked
    assert again.noise_secret == site.noise_secret
    last = kept_files(federation)[-1]
    with pytest.raises(SetupError, match="start the site's process once"):
        again.safe.read(last)
    plain = last.read_bytes()
    service.begin(again)
    assert again.safe.read(last) == plain != last.read_bytes()
    begin_rotation(again, None)
    rotate_key(federation.root / "coordinator", "north")
    federation.round()
    assert not federation.site("north").is_locked
    assert federation.site("north").safe.read(last) == plain
    assert {path.name for path in (site.folder / "keys").iterdir()} == {"identity.pem", "noise.key"}


def test_attack_a_rotation_that_is_killed_between_the_key_and_the_secret_ends_at_the_next_start(
        tmp_path: Path, types, rows_are_judged_here: None):
    federation = small_federation.make(tmp_path / "f", names=("north",), quorum=1)
    site = federation.site("north")
    types(WORDS)
    begin_rotation(site, WORDS)
    (site.folder / "keys" / "next.pem").replace(site.folder / "keys" / "identity.pem")
    again = federation.site("north")
    assert again.is_locked
    assert again.noise_secret == site.noise_secret
    assert site.noise_secret not in (site.folder / "keys" / "noise.key").read_bytes()


def test_a_site_that_is_killed_while_it_writes_has_the_old_file_or_the_new_one(one: Safe, monkeypatch):
    path = one.folder / "a"
    one.write(path, BODY)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            one.write(path, b"new")
    assert one.read(path) == BODY
    assert [found.name for found in one.folder.iterdir()] == ["a"]


def test_a_copied_folder_opens_with_the_same_passphrase(tmp_path: Path):
    here, there = Safe(tmp_path / "here", SECRET, True), Safe(tmp_path / "there", SECRET, True)
    here.folder.mkdir()
    here.write(here.folder / "a", BODY)
    shutil.copytree(here.folder, there.folder)
    assert there.read(there.folder / "a") == BODY


def test_what_lies_in_the_folder_beside_the_kept_files_is_left_alone(one: Safe):
    (one.folder / "kept").mkdir()
    (one.folder / "kept" / "shared.safetensors").write_bytes(BODY)
    kept.settle(one)
    assert (one.folder / "kept" / "shared.safetensors").read_bytes() == BODY


@pytest.mark.parametrize("passphrase", [None, OTHERS], ids=["none", "another"])
def test_attack_a_rotation_that_was_given_up_leaves_the_secret_behind_the_passphrase_that_holds(
        tmp_path: Path, types, rows_are_judged_here: None, passphrase: bytes | None):
    """The operator has forgotten the new passphrase, say, and removes the next key."""
    types(WORDS)
    federation = small_federation.make(tmp_path / "f", names=("north",), quorum=1, passphrase=WORDS)
    site = federation.site("north")
    types(passphrase or WORDS)
    begin_rotation(site, passphrase)
    (site.folder / "keys" / "next.pem").unlink()
    types(WORDS)
    again = federation.site("north")
    assert again.is_locked
    assert again.noise_secret == site.noise_secret
    begin_rotation(again, WORDS)
    assert len(list((site.folder / "keys").glob("next*"))) == 2, "of the next key alone"


def test_attack_a_rotation_that_is_asked_for_again_locks_key_and_secret_alike(tmp_path: Path, types,
                                                                             rows_are_judged_here: None):
    """Killed between the two, and asked for again without --passphrase: the secret would lie there plain."""
    federation = small_federation.make(tmp_path / "f", names=("north",), quorum=1)
    site = federation.site("north")
    types(WORDS)
    begin_rotation(site, WORDS)
    waiting, = (site.folder / "keys").glob("next-noise*")
    waiting.unlink()
    begin_rotation(site, None)
    assert waiting.read_bytes().startswith(locked.BEGIN)
