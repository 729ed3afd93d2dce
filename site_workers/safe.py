"""What a site keeps for itself, on its disk: encrypted if, and only if, its noise secret lies behind a passphrase.

The key is derived from the noise secret, so a new signing key or another passphrase changes no file. A sealed file is::

    FEDROUND SEALED aes-256-gcm 1
    <blocks: 12 bytes of nonce, at most 64 MiB of text, 16 of tag>

Each block is bound to the file's path in the folder, to its place and to how many there are: a file that is altered, cut, or
put in another's place does not open. Not promised: that the file is the newest of its name.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedround.errors import SetupError
from fedround.files import write_whole

_MARK = b"FEDROUND SEALED aes-256-gcm 1\n"      # no tensor file begins so: its first eight bytes are a length
_BLOCK, _NONCE, _TAG = 64 << 20, 12, 16


@dataclass(frozen=True)
class Safe:
    """The files that a site keeps in `folder`."""

    folder: Path
    secret: bytes
    """The site's noise secret."""
    is_locked: bool
    """Whether the noise secret lies behind a passphrase."""

    def write(self, path: Path, body: bytes) -> None:
        """Put `body` at `path`, durably, whole or not at all."""
        write_whole(path, self._sealed(path, body) if self.is_locked else body, durable=True)

    def read(self, path: Path) -> bytes:
        """What was written there. Raises SetupError if the file is damaged, or not encrypted where it must be."""
        body = path.read_bytes()
        if body.startswith(_MARK):
            return self._opened(path, body[len(_MARK):])
        if self.is_locked:
            raise SetupError(f"{path} is damaged, or not encrypted: restore it from your backup, or remove it, and what it "
                             "keeps begins anew. If the passphrase is new, start the site's process once: it encrypts it")
        return body

    def settle(self, path: Path) -> None:
        """Encrypt a file that was written before there was a passphrase."""
        if self.is_locked and not (body := path.read_bytes()).startswith(_MARK):
            self.write(path, body)

    @cached_property
    def _cipher(self) -> AESGCM:
        return AESGCM(HKDF(hashes.SHA256(), 32, salt=None, info=b"fedround/at-rest/1").derive(self.secret))

    def _sealed(self, path: Path, body: bytes) -> bytes:
        blocks = [body[at:at + _BLOCK] for at in range(0, len(body), _BLOCK)] or [b""]
        sealed = [_MARK]
        for place, block in enumerate(blocks):
            nonce = os.urandom(_NONCE)
            sealed += nonce, self._cipher.encrypt(nonce, block, self._bound(path, place, len(blocks)))
        return b"".join(sealed)

    def _opened(self, path: Path, body: bytes) -> bytes:
        step = _NONCE + _BLOCK + _TAG
        blocks = [body[at:at + step] for at in range(0, len(body), step)] or [b""]
        try:
            return b"".join(self._cipher.decrypt(block[:_NONCE], block[_NONCE:], self._bound(path, place, len(blocks)))
                            for place, block in enumerate(blocks))
        except (InvalidTag, ValueError):
            raise SetupError(f"{path} does not open: it was altered, moved, or encrypted at another site. Restore it from "
                             "your backup, or remove it, and what it keeps begins anew") from None

    def _bound(self, path: Path, place: int, blocks: int) -> bytes:
        return f"{path.relative_to(self.folder).as_posix()}\n{place} of {blocks}".encode()
