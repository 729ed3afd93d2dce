"""Ed25519 identities and signed documents.

A signed document is one line of canonical JSON (RFC 8785): ``{"body": …, "key": …, "kind": …, "signature": …}``. The
signature covers the kind and the bytes of the body, so a plan can never pass for a commit. The digest of a document is
the SHA-256 of these bytes: it names the body and who signed it.

A document has exactly one form in bytes (`envelope`, `unseal`). So nobody without the key can make a second valid document
with another digest. A sealed document can always be read: `seal` reads it back before it returns.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedround import locked
from fedround.errors import ContractError, SetupError, SignatureError
from fedround.files import create_once
from fedround.values import Signature, Signed, as_read, canonical, parse

S = TypeVar("S", bound=Signed)
MAX_DOCUMENT_BYTES = 4 << 20
MIN_PASSPHRASE_BYTES = 12
_DOMAIN = b"fedround/1/"
_REMEMBERED, _REMEMBERED_BYTES = 256, 32 << 10
"""So many documents of at most so many bytes are remembered."""


class Identity:
    """A private key and the name of its public half. The private half never leaves this object."""

    def __init__(self, private: Ed25519PrivateKey):
        self._private = private
        raw = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.key = f"ed25519:{raw.hex()}"

    @classmethod
    def generate(cls) -> Identity:
        """A new identity from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path, passphrase: Callable[[], bytes] | None = None) -> Identity:
        """Read a key written by `save`.

        passphrase: asked for only if the key is encrypted.
        Raises SetupError if it is missing, foreign, or readable by others, or if the passphrase is not the right one.
        """
        try:
            mode = path.stat().st_mode & 0o777
            pem = path.read_bytes()
        except OSError:
            raise SetupError(f"no private key at {path}: make one with 'fedround site init' or "
                             "'fedround federation init', or restore it from your backup") from None
        if mode & 0o077:
            raise SetupError(f"{path} can be read by other users (mode {mode:o}): run 'chmod 600 {path}'")
        if pem.startswith(locked.BEGIN):
            return cls(_unlocked(path, pem, passphrase))
        try:
            private = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm, InternalError):     # the last two: of a kind that is no key here
            raise SetupError(f"{path} is not a private key that fedround made: restore it from your backup") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise SetupError(f"{path} holds another kind of key; expected Ed25519")
        return cls(private)

    def save(self, path: Path, passphrase: bytes | None = None) -> None:
        """Write the key (PKCS8), durably, mode 0600. Refuses to overwrite: a lost key cannot be made again.

        passphrase: locks it instead (`fedround.locked`: scrypt, AES-256-GCM). It has at least `MIN_PASSPHRASE_BYTES`, or
        ContractError.
        """
        if passphrase is not None and len(passphrase) < MIN_PASSPHRASE_BYTES:
            raise ContractError(f"a passphrase has at least {MIN_PASSPHRASE_BYTES} characters: four or five words are good")
        pem = self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption(),
        ) if passphrase is None else locked.lock(self._private.private_bytes_raw(), passphrase)
        if not create_once(path, pem):
            raise SetupError(f"{path} exists already and is left as it is: a key that is overwritten is lost")

    def sign(self, message: bytes) -> bytes:
        """64 bytes; the same message always gives the same signature."""
        return self._private.sign(message)


def _unlocked(path: Path, file: bytes, passphrase: Callable[[], bytes] | None) -> Ed25519PrivateKey:
    if passphrase is None:
        raise SetupError(f"{path} is encrypted, and nobody can be asked for its passphrase here")
    try:
        return Ed25519PrivateKey.from_private_bytes(locked.unlock(file, passphrase()))
    except ValueError:
        raise SetupError(f"{path}: the passphrase does not open this key, or the file is damaged; try again, then restore it "
                         "from your backup") from None


def digest(data: bytes | memoryview) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sign(body: Signed, identity: Identity) -> Signature:
    """The signature of a document, for who knows its body already. Deterministic."""
    return identity.sign(_message(body.kind, canonical(body))).hex()


def is_signed(body: Signed, key: str, signature: Signature) -> bool:
    """Whether `key` signed this body."""
    return _holds(key, signature, _message(body.kind, canonical(body)))


def seal(body: Signed, identity: Identity) -> bytes:
    """Sign `body`. Deterministic.

    What is returned was read back and is `body`. Raises ContractError, saying what cannot be read, if it could not be: a
    number out of its range, more bytes than a document has.
    """
    source, written = f"a signed '{body.kind}' that nobody could read", canonical(body)
    signature = identity.sign(_message(body.kind, written)).hex()
    document = b'{"body":%b,"key":"%b","kind":"%b","signature":"%b"}' % (
        written, identity.key.encode(), body.kind.encode(), signature.encode())
    if unseal(document, type(body), identity.key, source) != body:
        raise ContractError(f"{source}: read again, it says something else")
    return document


class Envelope(NamedTuple):
    """The parts of a document in its one form. Nothing in it is trusted before its signature is checked against a key."""

    body: bytes
    key: str
    kind: str
    signature: Signature


_FORM = re.compile(
    rb'\{"body":(\{.*\}),"key":"(ed25519:[0-9a-f]{64})","kind":"([a-z-]{1,40})","signature":"([0-9a-f]{128})"\}', re.DOTALL)
_KEY, _SIGNATURE = re.compile("ed25519:[0-9a-f]{64}"), re.compile("[0-9a-f]{128}")


def envelope(document: bytes, source: str) -> Envelope:
    """Take a document apart, byte for byte: no JSON is read.

    Raises SignatureError if any byte differs from this form, ContractError if there are too many bytes.
    """
    if len(document) > MAX_DOCUMENT_BYTES:
        raise ContractError(f"{source}: {len(document)} bytes; a signed document has at most {MAX_DOCUMENT_BYTES}")
    found = _FORM.fullmatch(document)
    if found is None:
        raise SignatureError(f"{source}: not a signed document in its one form; it was altered, or is something else")
    body, key, kind, signature = found.groups()
    return Envelope(body, key.decode(), kind.decode(), signature.decode())


def unseal(document: bytes, body_type: type[S], key: str, source: str) -> S:
    """Read a document that must be a `body_type` signed by `key`.

    source: whose document this is, for the message ("plan of round 3 of run 'spring'").
    Raises SignatureError if the document is not in its one form, of another kind, by another key or altered in any byte;
    ContractError if the body is not a `body_type`.
    """
    if len(document) <= _REMEMBERED_BYTES:
        with suppress(ContractError, SignatureError):       # told below, with the source
            body: S = _known(document, body_type, key)
            return body
    return _judged(document, body_type, key, source)


@lru_cache(maxsize=_REMEMBERED)
def _known(document: bytes, body_type: type[S], key: str) -> S:
    """What held once holds: plans and commits are read many times in a round. What does not hold is not remembered."""
    return _judged(document, body_type, key, "a document")


def _judged(document: bytes, body_type: type[S], key: str, source: str) -> S:
    said = envelope(document, source)
    if said.kind != body_type.kind:
        raise SignatureError(f"{source}: expected a signed '{body_type.kind}', got another kind of document")
    if said.key != key:
        raise SignatureError(f"{source}: signed by another key than the agreed {key[:20]}…; ask who changed it")
    if not _holds(key, said.signature, _message(said.kind, said.body)):
        raise SignatureError(f"{source}: the signature does not match; the document was altered")
    body = parse(body_type, said.body, source)
    if as_read(body) != said.body:
        raise SignatureError(f"{source}: its body is not canonical JSON; whoever signed it uses something else than fedround")
    return body


def _holds(key: str, signature: Signature, message: bytes) -> bool:
    if _KEY.fullmatch(key) is None or _SIGNATURE.fullmatch(signature) is None:
        return False
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.removeprefix("ed25519:")))
    try:
        public.verify(bytes.fromhex(signature), message)
    except InvalidSignature:
        return False
    return True


def _message(kind: str, body: bytes) -> bytes:
    return _DOMAIN + kind.encode() + b"\n" + body
