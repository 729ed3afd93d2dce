"""A key is its owner's: mode 0600, never overwritten, and with a passphrase nobody else's even if the file is lost."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import Field

from fedround import locked
from fedround.errors import ContractError, SetupError, SignatureError
from fedround.federation_log import Rotation
from fedround.records import Commit, LogHead
from fedround.sightings import Sighting
from fedround.signing import MAX_DOCUMENT_BYTES, MIN_PASSPHRASE_BYTES, Identity, seal, unseal
from fedround.values import Signed, parse
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
SAID = Sighting(federation="banks", run="spring", round=7, site="lund", plan="a" * 64, log=LogHead(number=1, digest="b" * 64))
ORDER = 2 ** 252 + 27742317777372353535851937790883648493     # of Ed25519's group


class Parting(Signed):
    """Two numbers, as a document may hold them."""

    kind: ClassVar[str] = "parting"
    norm: Annotated[float, Field(ge=0, le=1e60)]
    after: Annotated[float, Field(ge=0, le=1e60)] = 0.0


def test_a_document_comes_back_and_is_one_line_of_canonical_json():
    document = seal(SAID, SIGNER)
    assert unseal(document, Sighting, SIGNER.key, "it") == SAID
    assert document == seal(SAID, SIGNER)
    assert document == rfc8785.dumps(json.loads(document))
    assert b"\n" not in document


def signature_of(document: bytes) -> str:
    return str(json.loads(document)["signature"])


def with_signature(document: bytes, change: Callable[[str], str]) -> bytes:
    old = signature_of(document)
    return document.replace(old.encode(), change(old).encode())


def and_the_order(signature: str) -> str:
    """Another number that means the same to who computes and does not look (RFC 8032, 5.1.7)."""
    half, s = signature[:64], int.from_bytes(bytes.fromhex(signature[64:]), "little")
    return half + (s + ORDER).to_bytes(32, "little").hex()


@pytest.mark.parametrize("write", [
    lambda document: document + b"\n", lambda document: b" " + document, lambda document: document.replace(b":", b": ", 1),
    lambda document: b"\xef\xbb\xbf" + document, lambda document: document.decode().encode("utf-16"),
    lambda document: json.dumps(dict(reversed(json.loads(document).items()))).encode(),
    lambda document: document.replace(b'"kind"', b'"kind":"sighting","kind"'),
    lambda document: document.replace(b'"key"', b'"k\\u0065y"'),
    lambda document: document.replace(b'"round":7', b'"round":7.0'),
    lambda document: document.replace(b'"round":7', b'"round":7e0'),
    lambda document: document.replace(b"aaaa", b"\\u0061aaa"),
    lambda document: document.replace(SIGNER.key[8:].encode(), SIGNER.key[8:].upper().encode()),
    lambda document: with_signature(document, str.upper), lambda document: with_signature(document, lambda old: old + " "),
    lambda document: with_signature(document, lambda old: f"{old[:64]} {old[64:]}"),
    lambda document: with_signature(document, lambda old: f"0x{old}"),
    lambda document: with_signature(document, and_the_order)],
    ids=["newline", "space", "blank", "mark", "utf-16", "order", "twice", "name", "float", "exponent", "escape", "key",
         "capitals", "blank after", "blank within", "prefix", "same point"])
def test_the_same_words_in_other_bytes_are_not_the_document(write):
    """One document has one digest; otherwise who has no key could show a commit in two ways."""
    document = seal(SAID, SIGNER)
    other = write(document)
    assert other != document
    with pytest.raises(SignatureError, match="altered"):
        unseal(other, Sighting, SIGNER.key, "it")


@pytest.mark.parametrize("body", [
    b'{"after":0,"norm":1.0}', b'{"after":0,"norm":1e0}', b'{"after":0,"norm":1,"norm":1}', b'{"norm":1,"after":0}',
    b'{"after":0,"norm": 1}', b'{"after":-0,"norm":1}',
    b'{"after":0,"norm":10000000000000001}', b'{"after":0,"n\\u006frm":1}', b'{"after":0,"norm":1}'],
    ids=["float", "exponent", "twice", "order", "blank", "minus", "rounded", "escape", "canonical"])
def test_a_body_has_one_form_even_for_who_has_the_key(body: bytes):
    signature = SIGNER.sign(b"fedround/1/parting\n" + body).hex()
    document = b'{"body":%b,"key":"%b","kind":"parting","signature":"%b"}' % (body, SIGNER.key.encode(), signature.encode())
    if body == b'{"after":0,"norm":1}':
        assert unseal(document, Parting, SIGNER.key, "it") == Parting(norm=1, after=0)
        return
    with pytest.raises(SignatureError, match="not canonical JSON"):
        unseal(document, Parting, SIGNER.key, "it")


def test_a_document_from_before_a_key_was_known_is_still_read():
    signature = SIGNER.sign(b'fedround/1/parting\n{"norm":10000000000000000}').hex()
    document = (f'{{"body":{{"norm":10000000000000000}},"key":"{SIGNER.key}","kind":"parting","signature":"{signature}"}}')
    assert unseal(document.encode(), Parting, SIGNER.key, "it") == Parting(norm=1e16)


@pytest.mark.parametrize("number", [1e16, 1e18, 1e20, 2.0 ** 53, 1e15, 1e25, 5e-324, -0.0, 1e21, 999999999999999868928.0])
def test_what_was_sealed_can_be_read(number: float):
    """RFC 8785 writes whole numbers from 2^53 to 1e21 without a point, and they are read as what they are."""
    document = seal(Parting(norm=number), SIGNER)
    assert unseal(document, Parting, SIGNER.key, "it").norm == number


@pytest.mark.parametrize("number", [math.inf, math.nan, 1e61, -1.0, "1"])
def test_what_could_not_be_read_is_not_sealed(number: object):
    """`model_copy` checks nothing."""
    with pytest.raises(ContractError):
        seal(Parting(norm=1.0).model_copy(update={"norm": number}), SIGNER)


def test_a_document_of_one_kind_is_not_one_of_another():
    with pytest.raises(SignatureError, match="expected a signed 'commit', got another kind"):
        unseal(seal(SAID, SIGNER), Commit, SIGNER.key, "it")
    with pytest.raises(SignatureError, match="the signature does not match"):
        unseal(seal(SAID, SIGNER).replace(b'"kind":"sighting"', b'"kind":"commit"'), Commit, SIGNER.key, "it")


def test_what_held_once_holds_for_no_other_key_kind_or_byte_and_what_does_not_hold_is_told_each_time():
    """A process remembers the documents that held (`signing._known`)."""
    document, stranger = seal(SAID, SIGNER), Identity.generate()
    assert unseal(document, Sighting, SIGNER.key, "it") == SAID
    for source in ("first", "second"):
        with pytest.raises(SignatureError, match=f"^{source}: signed by another key"):
            unseal(document, Sighting, stranger.key, source)
        with pytest.raises(SignatureError, match=f"^{source}: expected a signed 'commit'"):
            unseal(document, Commit, SIGNER.key, source)
        with pytest.raises(SignatureError, match=f"^{source}: the signature does not match"):
            unseal(document.replace(b'"round":7', b'"round":8'), Sighting, SIGNER.key, source)
    assert unseal(document, Sighting, SIGNER.key, "it") == SAID


def test_more_bytes_than_a_document_has_are_not_read():
    with pytest.raises(ContractError, match="at most"):
        unseal(b"[" * (MAX_DOCUMENT_BYTES + 1), Sighting, SIGNER.key, "it")


@pytest.mark.parametrize("key", ["00" * 32, "01" + "00" * 31, "01" + "00" * 30 + "80", "ec" + "ff" * 30 + "7f",
                                 "ee" + "ff" * 30 + "7f", "ed" + "ff" * 31,
                                 "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"])
def test_a_key_for_which_anybody_can_sign_is_nobodys(key: str):
    """With the neutral point as a key, one signature holds for every message; others of its kind hold for many."""
    with pytest.raises(ContractError, match="'old': this public key is nobody's"):
        parse(Rotation, {"federation": "f", "site": "s", "old": f"ed25519:{key}", "new": SIGNER.key}, "it")


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


def test_a_key_with_one_bit_of_damage_is_a_sentence_or_opens(tmp_path: Path):
    """The kind of a key is a few of its bits: with one of them flipped, OpenSSL knows a kind that it cannot make, or none."""
    Identity.generate().save(whole := tmp_path / "key.pem")
    begin, body, end = whole.read_text().splitlines()
    der = base64.b64decode(body)
    for bit in range(8 * len(der)):
        damaged = bytearray(der)
        damaged[bit // 8] ^= 1 << bit % 8
        whole.write_text(f"{begin}\n{base64.b64encode(damaged).decode()}\n{end}\n")
        try:
            Identity.load(whole)
        except SetupError as error:
            assert "key" in str(error)


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
    federation = small_federation.make(tmp_path / "f", names=("north",), quorum=1, passphrase=WORDS)
    monkeypatch.delenv(FILE_VARIABLE, raising=False)
    with pytest.raises(SetupError, match="is encrypted"):
        federation.site("north")
    monkeypatch.setenv(FILE_VARIABLE, str(words))
    assert federation.site("north").identity.key == federation.coordinator.federation.site("north").key
