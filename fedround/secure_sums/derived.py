"""Where every secret and every mask comes from: one function, a word for each use, and what it depends on.

The word is a constant, the parts are length-prefixed, so no two uses share a key. AES-256 in counter mode makes the streams;
a key serves one stream.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Literal

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedround.errors import ContractError

KEY_BYTES = 32

Use = Literal["channel", "slot key", "self seed", "polynomials", "box", "pair mask", "self mask"]
Hashed = Literal["roster", "share of a self seed", "share of a slot key", "self seed", "groups", "group"]
_DOMAIN = b"fedround/1/secure sums/"


def part(data: bytes | str | int) -> bytes:
    """Its length, then it."""
    body = data.encode() if isinstance(data, str) else struct.pack("<Q", data) if isinstance(data, int) else data
    return struct.pack("<Q", len(body)) + body


def derive(material: bytes, use: Use, *parts: bytes | str | int, salt: bytes | None = None) -> bytes:
    """A key of 32 bytes (HKDF-SHA256, RFC 5869)."""
    info = _DOMAIN + part(use) + b"".join(map(part, parts))
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(material)


def hashed(use: Hashed, *parts: bytes | str | int) -> bytes:
    """SHA-256 of the parts, for one use."""
    return hashlib.sha256(_DOMAIN + part(use) + b"".join(map(part, parts))).digest()


def agreed(private: X25519PrivateKey, public: bytes, whose: str) -> bytes:
    """What both ends of a pair know and nobody else (X25519, RFC 7748).

    Raises ContractError, naming the member, if everybody would know it: a public key of small order.
    """
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise ContractError(f"the key of '{whose}' is of small order: anybody could compute its masks; leave that member "
                            "out, and ask it what it runs") from None
