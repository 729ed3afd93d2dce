"""A private key behind a passphrase, as a small text file.

::

    -----BEGIN FEDROUND LOCKED KEY-----
    scrypt-17-8-1 aes-256-gcm
    <base64: 16 bytes of salt, 12 of nonce, the sealed 32 bytes of the key, 16 of tag>
    -----END FEDROUND LOCKED KEY-----

Why not PKCS8: what the library writes there is PBKDF2 with 2,048 rounds, and a graphics card tries a million passphrases a
second. scrypt with N = 2^17, r = 8, p = 1 (RFC 7914; what OWASP asks for) takes a third of a second and 128 MiB for each
try. The format fixes the parameters: a file can ask neither for less, nor for more than a machine has.
"""

from __future__ import annotations

import base64
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

BEGIN = b"-----BEGIN FEDROUND LOCKED KEY-----"
_HOW = b"scrypt-17-8-1 aes-256-gcm"
_END = b"-----END FEDROUND LOCKED KEY-----"
_SALT, _NONCE, _SECRET, _TAG = 16, 12, 32, 16


def lock(secret: bytes, passphrase: bytes, bound: bytes = b"") -> bytes:
    """The file's bytes: never the same twice. secret: the raw key, 32 bytes. bound: what it is for."""
    salt, nonce = os.urandom(_SALT), os.urandom(_NONCE)
    sealed = AESGCM(_key(passphrase, salt)).encrypt(nonce, secret, _HOW + bound)
    return b"\n".join((BEGIN, _HOW, base64.b64encode(salt + nonce + sealed), _END, b""))


def unlock(file: bytes, passphrase: bytes, bound: bytes = b"") -> bytes:
    """The secret. Raises ValueError if the passphrase is another, or what it is for, or any byte of the file was altered."""
    begin, how, body, end, *rest = *file.split(b"\n"), b"", b"", b""
    data = base64.b64decode(body, validate=True)
    if (begin, how, end, any(rest), len(data)) != (BEGIN, _HOW, _END, False, _SALT + _NONCE + _SECRET + _TAG):
        raise ValueError("not a locked key of this format")
    salt, nonce, sealed = data[:_SALT], data[_SALT:_SALT + _NONCE], data[_SALT + _NONCE:]
    try:
        return AESGCM(_key(passphrase, salt)).decrypt(nonce, sealed, _HOW + bound)
    except InvalidTag:
        raise ValueError("another passphrase, or an altered file") from None


def _key(passphrase: bytes, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=2 ** 17, r=8, p=1).derive(passphrase)
