"""Ed25519 identities and signed documents.

A signed document is one line of canonical JSON (RFC 8785): ``{"body": …, "key": …, "kind": …, "signature": …}``. The
signature covers the kind and the canonical body, so a plan can never pass for a commit. The digest of a document is
the SHA-256 of these bytes: it names the body and who signed it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedround import locked
from fedround.errors import ContractError, SetupError, SignatureError
from fedround.files import create_once
from fedround.values import Signature, Value, parse

V = TypeVar("V", bound=Value)
MAX_DOCUMENT_BYTES = 4 << 20
MIN_PASSPHRASE_BYTES = 12
_DOMAIN = b"fedround/1/"


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
        except (ValueError, TypeError):
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


def canonical(body: Value) -> bytes:
    """The one way to write `body` as bytes (RFC 8785)."""
    return rfc8785.dumps(body.model_dump(mode="json"))


def sign(kind: str, body: Value, identity: Identity) -> Signature:
    """The signature of a document of `kind`, for who knows its body already. Deterministic."""
    return identity.sign(_message(kind, canonical(body))).hex()


def is_signed(kind: str, body: Value, key: str, signature: Signature) -> bool:
    """Whether `key` signed this body as a document of `kind`."""
    return _holds(key, signature, _message(kind, canonical(body)))


def seal(kind: str, body: Value, identity: Identity) -> bytes:
    """Sign `body` as a document of `kind`. Deterministic."""
    return rfc8785.dumps({
        "body": body.model_dump(mode="json"), "key": identity.key, "kind": kind, "signature": sign(kind, body, identity)})


def unseal(kind: str, document: bytes, body_type: type[V], key: str, source: str) -> V:
    """Read a document that must be of `kind` and signed by `key`.

    source: whose document this is, for the message ("plan of round 3 of run 'spring'").
    Raises SignatureError if the document is not canonical, of another kind, by another key or altered in any byte;
    ContractError if the body is not a `body_type`.
    """
    if len(document) > MAX_DOCUMENT_BYTES:
        raise ContractError(f"{source}: {len(document)} bytes; a signed document has at most {MAX_DOCUMENT_BYTES}")
    envelope = _envelope(document, source)
    if envelope["kind"] != kind:
        raise SignatureError(f"{source}: expected a signed '{kind}', got another kind of document")
    if envelope["key"] != key:
        raise SignatureError(f"{source}: signed by another key than the agreed {key[:20]}…; ask who changed it")
    try:
        body = rfc8785.dumps(envelope["body"])
        holds = _holds(key, envelope["signature"], _message(kind, body))
        exact = rfc8785.dumps(envelope) == document
    except (ValueError, TypeError, rfc8785.CanonicalizationError):
        holds = exact = False
    if not holds:
        raise SignatureError(f"{source}: the signature does not match; the document was altered")
    if not exact:
        raise SignatureError(f"{source}: not canonical JSON; the document was altered")
    return parse(body_type, body, source)


def _envelope(document: bytes, source: str) -> dict[str, Any]:
    try:
        envelope = json.loads(document)
        if not isinstance(envelope, dict) or set(envelope) != {"body", "key", "kind", "signature"}:
            raise ValueError
    except (ValueError, RecursionError):
        raise SignatureError(f"{source}: not a signed document") from None
    return envelope


def _holds(key: str, signature: str, message: bytes) -> bool:
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.removeprefix("ed25519:")))
    try:
        public.verify(bytes.fromhex(signature), message)
    except InvalidSignature:
        return False
    return True


def _message(kind: str, body: bytes) -> bytes:
    return _DOMAIN + kind.encode() + b"\n" + body
