"""A key is its owner's: mode 0600, never overwritten, and with a passphrase nobody else's even if the file is lost."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fedround import locked
from fedround.errors import ContractError, SetupError, SignatureError
from fedround.records import LogHead
from fedround.signing import MAX_DOCUMENT_BYTES, MIN_PASSPHRASE_BYTES, Identity, seal, unseal
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
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY" if passphrase is None else locked.BEGIN)


def test_a_key_without_a_passphrase_asks_for_none(tmp_path: Path):
    def asked() -> bytes:
        raise AssertionError

    saved(tmp_path)
    Identity.load(tmp_path / "identity.pem", asked)


def test_another_passphrase_opens_nothing(tmp_path: Path):
    _, path = saved(tmp_path, WORDS)
    with pytest.raises(SetupError, match="the passphrase does not open this key"):
        Identity.load(path, lambda: WORDS + b" ")


def test_a_locked_key_is_text_that_no_byte_can_leave_and_never_the_same_twice():
    secret = bytes(range(32))
    file = locked.lock(secret, WORDS)
    assert locked.lock(secret, WORDS) != file
    assert locked.unlock(file, WORDS) == secret
    lines = file.split(b"\n")
    altered = [file[:-1] + b"x", file + b"x", b"\n".join((lines[0], b"scrypt-10-8-1 aes-256-gcm", *lines[2:])),
               b"\n".join((*lines[:2], lines[2][:-4], *lines[3:])), file.replace(lines[2][40:41], b"!", 1)]
    flipped = bytearray(base64.b64decode(lines[2]))
    for where in (0, 20, 40, len(flipped) - 1):         # salt, nonce, key, tag
        flipped[where] ^= 1
        altered.append(b"\n".join((*lines[:2], base64.b64encode(flipped), *lines[3:])))
        flipped[where] ^= 1
    for other in altered:
        with pytest.raises(ValueError, match="not a locked key|another passphrase|base64|padding|characters"):
            locked.unlock(other, WORDS)


def test_a_passphrase_costs_whoever_guesses_it_time_and_memory():
    """The file names no parameters of its own, so nobody can be talked into weaker ones; and these are scrypt's."""
    file = locked.lock(bytes(32), WORDS)
    data = base64.b64decode(file.split(b"\n")[2])
    key = hashlib.scrypt(WORDS, salt=data[:16], n=2 ** 17, r=8, p=1, maxmem=1 << 28, dklen=32)
    assert AESGCM(key).decrypt(data[16:28], data[28:], b"scrypt-17-8-1 aes-256-gcm") == bytes(32)


def test_a_key_of_another_kind_is_not_used(tmp_path: Path):
    path = tmp_path / "identity.pem"
    path.write_bytes(X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    with pytest.raises(SetupError, match="another kind of key"):
        Identity.load(path)


# -- signed documents --------------------------------------------------------------------------------------------------

SIGNER = Identity.generate()
SAID = LogHead(number=7, digest="a" * 64)


def test_a_document_comes_back_and_is_one_line_of_canonical_json():
    document = seal("log-head", SAID, SIGNER)
    assert unseal("log-head", document, LogHead, SIGNER.key, "it") == SAID
    assert document == seal("log-head", SAID, SIGNER)
    assert b"\n" not in document


@pytest.mark.parametrize("write", [
    lambda document: document + b"\n", lambda document: b" " + document, lambda document: document.replace(b":", b": ", 1),
    lambda document: json.dumps(dict(reversed(json.loads(document).items()))).encode(),
    lambda document: document.replace(b'"number":7', b'"number":7.0'),
    lambda document: document.replace(b"aaaa", b"\\u0061aaa")],
    ids=["newline", "space", "blank", "order", "float", "escape"])
def test_the_same_words_in_other_bytes_are_not_the_document(write):
    """One document has one digest; otherwise a commit could be shown in two ways."""
    document = seal("log-head", SAID, SIGNER)
    other = write(document)
    assert other != document
    assert json.loads(other) == json.loads(document)
    with pytest.raises(SignatureError, match="not canonical JSON"):
        unseal("log-head", other, LogHead, SIGNER.key, "it")


def test_a_document_of_one_kind_is_not_one_of_another():
    with pytest.raises(SignatureError, match="expected a signed 'commit', got another kind"):
        unseal("commit", seal("plan", SAID, SIGNER), LogHead, SIGNER.key, "it")
    with pytest.raises(SignatureError, match="the signature does not match"):
        unseal("commit", seal("plan", SAID, SIGNER).replace(b'"kind":"plan"', b'"kind":"commit"'), LogHead, SIGNER.key, "it")


def test_more_bytes_than_a_document_has_are_not_read():
    with pytest.raises(ContractError, match="at most"):
        unseal("plan", b"[" * (MAX_DOCUMENT_BYTES + 1), LogHead, SIGNER.key, "it")


# -- passphrases -------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("body", [b"", locked.BEGIN, locked.BEGIN + b"\nAAAA\n", b"garbage"])
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
