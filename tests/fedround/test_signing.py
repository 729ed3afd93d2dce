"""A key is its owner's: mode 0600, never overwritten, and with a passphrase nobody else's even if the file is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedround.errors import ContractError, SetupError
from fedround.signing import MIN_PASSPHRASE_BYTES, Identity
from infra.passphrase import FILE_VARIABLE, passphrase_for

WORDS = b"four quite long words"


def saved(folder: Path, passphrase: bytes | None = None) -> tuple[Identity, Path]:
    identity = Identity.generate()
    identity.save(folder / "identity.pem", passphrase)
    return identity, folder / "identity.pem"


@pytest.mark.parametrize("passphrase", [None, WORDS, b"\xff" * MIN_PASSPHRASE_BYTES], ids=["none", "words", "bytes"])
def test_a_key_comes_back_as_it_was_saved(tmp_path: Path, passphrase: bytes | None):
    identity, path = saved(tmp_path, passphrase)
    back = Identity.load(path, lambda: passphrase or b"")
    assert (back.key, back.sign(b"x")) == (identity.key, identity.sign(b"x"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes().startswith(b"-----BEGIN " + (b"PRIVATE" if passphrase is None else b"ENCRYPTED PRIVATE"))


def test_a_key_without_a_passphrase_asks_for_none(tmp_path: Path):
    def asked() -> bytes:
        raise AssertionError

    saved(tmp_path)
    Identity.load(tmp_path / "identity.pem", asked)


def test_another_passphrase_opens_nothing(tmp_path: Path):
    _, path = saved(tmp_path, WORDS)
    with pytest.raises(SetupError, match="the passphrase does not open this key"):
        Identity.load(path, lambda: WORDS + b" ")


def test_where_nobody_can_be_asked_the_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _, path = saved(tmp_path, WORDS)
    monkeypatch.delenv(FILE_VARIABLE, raising=False)
    with pytest.raises(SetupError, match=FILE_VARIABLE):
        Identity.load(path, passphrase_for(path))
    with pytest.raises(SetupError, match="nobody can be asked"):
        Identity.load(path)


def test_a_service_is_given_a_file_that_only_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    identity, path = saved(tmp_path, WORDS)
    words = tmp_path / "words"
    monkeypatch.setenv(FILE_VARIABLE, str(words))
    with pytest.raises(SetupError, match=f"cannot read {words}"):
        Identity.load(path, passphrase_for(path))
    words.write_bytes(WORDS + b"\n")
    words.chmod(0o644)
    with pytest.raises(SetupError, match="chmod 600"):
        Identity.load(path, passphrase_for(path))
    words.chmod(0o600)
    assert Identity.load(path, passphrase_for(path)).key == identity.key


def test_a_short_passphrase_makes_no_key(tmp_path: Path):
    with pytest.raises(ContractError, match="at least 12"):
        Identity.generate().save(tmp_path / "identity.pem", b"eleven byte")
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path):
    _, path = saved(tmp_path)
    path.chmod(0o640)
    with pytest.raises(SetupError, match="chmod 600"):
        Identity.load(path)


def test_a_key_is_never_overwritten(tmp_path: Path):
    identity, path = saved(tmp_path)
    with pytest.raises(SetupError, match="exists already"):
        Identity.generate().save(path)
    assert Identity.load(path).key == identity.key


@pytest.mark.parametrize("body", [b"", b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n", b"garbage"])
def test_a_damaged_key_says_what_to_do(tmp_path: Path, body: bytes):
    path = tmp_path / "identity.pem"
    path.write_bytes(body)
    path.chmod(0o600)
    with pytest.raises(SetupError, match="restore it from your backup"):
        Identity.load(path, lambda: WORDS)


def test_a_site_with_a_passphrase_opens_with_it_and_not_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                              rows_are_judged_here: None):
    from tests import small_federation

    words = tmp_path / "words"
    words.write_bytes(WORDS)
    words.chmod(0o600)
    federation = small_federation.make(tmp_path / "f", passphrase=WORDS)
    monkeypatch.delenv(FILE_VARIABLE, raising=False)
    with pytest.raises(SetupError, match="is encrypted"):
        federation.site("north")
    monkeypatch.setenv(FILE_VARIABLE, str(words))
    assert federation.site("north").identity.key == federation.coordinator.federation.site("north").key
