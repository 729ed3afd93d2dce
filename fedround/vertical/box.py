"""A file from one member to one other: encrypted, so that who relays it learns its size.

The keys of both ends are made for one exchange, and each is signed by its member (`records.Answer`), so nobody stands in
between. AES-256-GCM under a key from X25519 and HKDF-SHA256, for one plan, sender and reader. The nonce follows from the
sender's secret and the text: a retry repeats the bytes, and another text never has the same nonce.
"""

from __future__ import annotations

import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedround.errors import ContractError

_DOMAIN = b"fedround/1/vertical/"
_NONCE = 12
KEY_BYTES = 32
BOX_BYTES = _NONCE + 16
"""How much longer a box is than what is in it."""


def secret_of(secret: bytes, link: bytes, use: str) -> bytes:
    """A secret for one exchange and one use, from the site's own."""
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=_DOMAIN + _part(use.encode()) + _part(link)).derive(secret)


def key_of(secret: bytes, link: bytes, use: str) -> X25519PrivateKey:
    """The same as a private key. use: "channel", or "exponent" for the intersection."""
    return X25519PrivateKey.from_private_bytes(secret_of(secret, link, use))


def public_of(key: X25519PrivateKey) -> bytes:
    """Its public half."""
    return key.public_key().public_bytes_raw()


def seal(body: bytes, mine: X25519PrivateKey, theirs: bytes, plan: bytes, sender: str, reader: str) -> bytes:
    """`body`, for `reader` alone. Raises ContractError for a reader's key that is nobody's."""
    nonce = hmac.digest(mine.private_bytes_raw() + plan, body, "sha256")[:_NONCE]
    return nonce + AESGCM(_key(mine, theirs, plan, sender, reader)).encrypt(nonce, body, None)


def opened(box: bytes, mine: X25519PrivateKey, theirs: bytes, plan: bytes, sender: str, reader: str) -> bytes:
    """What is in a box. Raises ContractError if it is for another reader or plan, from another sender, or was altered."""
    try:
        return AESGCM(_key(mine, theirs, plan, sender, reader)).decrypt(box[:_NONCE], box[_NONCE:], None)
    except (InvalidTag, ValueError):
        raise ContractError(f"what '{sender}' sent to '{reader}' does not open: it is for another reader or plan, or was "
                            "altered") from None


def _key(mine: X25519PrivateKey, theirs: bytes, plan: bytes, sender: str, reader: str) -> bytes:
    try:
        shared = mine.exchange(X25519PublicKey.from_public_bytes(theirs))
    except ValueError:
        raise ContractError(f"a key between '{sender}' and '{reader}' is of small order: everybody could read what is sent "
                            "under it") from None
    info = b"".join(map(_part, (b"box", plan, sender.encode(), reader.encode())))
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=_DOMAIN + info).derive(shared)


def _part(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data
