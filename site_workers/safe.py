"""What a site keeps for itself, on its disk: encrypted if, and only if, its noise secret lies behind a passphrase.

The key is derived from the noise secret, so a new signing key or another passphrase changes no file. A sealed file is::

    FEDROUND SEALED aes-256-gcm 1
    <blocks: 12 bytes of nonce, at most 64 MiB of text, 16 of tag>

Each block is bound to the file's path in the folder, to its place and to how many there are: a file that is altered, cut, or
put in another's place does not open. It is written block by block; read, it needs memory for what it holds and two blocks.
Not promised: that the file is the newest of its name.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedround.errors import SetupError
from fedround.files import writing_whole

_MARK = b"FEDROUND SEALED aes-256-gcm 1\n"      # no tensor file begins so: its first eight bytes are a length
_BLOCK, _NONCE, _TAG = 64 << 20, 12, 16


@dataclass(frozen=True)
class Safe:
    """The files that a site keeps in `folder`."""

    folder: Path
    secret: bytes = field(repr=False)
    """The site's noise secret."""
    is_locked: bool
    """Whether the noise secret lies behind a passphrase."""

    def write(self, path: Path, body: bytes, *, of: Path | None = None) -> None:
        """Put `body` at `path`, durably, whole or not at all.

        of: where it will lie, if its folder is yet to be renamed.
        """
        with writing_whole(path, durable=True) as file:
            for part in self._sealed(of or path, body) if self.is_locked else (body,):
                file.write(part)

    def read(self, path: Path) -> bytes:
        """What was written there. Raises SetupError if the file is damaged, or not encrypted where it must be."""
        if self.is_locked and not self.is_sealed(path):
            raise SetupError(f"{path} is damaged, or not encrypted; if the passphrase is new, start the site's process once: "
                             "it encrypts it. If not, restore it from your backup")
        return self.read_signed(path)

    def read_signed(self, path: Path) -> bytes:
        """The same of a file that proves by itself what it is: it is read without encryption, too, until `settle`."""
        with path.open("rb") as file:
            return self._opened(path, file) if file.read(len(_MARK)) == _MARK else path.read_bytes()

    def is_sealed(self, path: Path) -> bool:
        """Whether the file is encrypted."""
        with path.open("rb") as file:
            return file.read(len(_MARK)) == _MARK

    def settle(self, path: Path) -> None:
        """Encrypt a file that was written before there was a passphrase."""
        if self.is_locked and not self.is_sealed(path):
            self.write(path, path.read_bytes())

    @cached_property
    def _cipher(self) -> AESGCM:
        return AESGCM(HKDF(hashes.SHA256(), 32, salt=None, info=b"fedround/at-rest/1").derive(self.secret))

    def _sealed(self, path: Path, body: bytes) -> Iterator[bytes]:
        yield _MARK
        blocks = max(1, -(-len(body) // _BLOCK))
        for place in range(blocks):
            nonce = os.urandom(_NONCE)
            yield nonce
            yield self._cipher.encrypt(nonce, body[place * _BLOCK:(place + 1) * _BLOCK], self._bound(path, place, blocks))

    def _opened(self, path: Path, file: BinaryIO) -> bytes:
        """What the rest of the file holds."""
        step, body = _NONCE + _BLOCK + _TAG, io.BytesIO()
        blocks = max(1, -(-(os.fstat(file.fileno()).st_size - len(_MARK)) // step))
        try:
            for place in range(blocks):
                block = file.read(step)
                body.write(self._cipher.decrypt(block[:_NONCE], block[_NONCE:], self._bound(path, place, blocks)))
        except (InvalidTag, ValueError):
            raise SetupError(f"{path} does not open: it was altered, moved, or encrypted at another site; restore it from "
                             "your backup") from None
        return body.getvalue()

    def _bound(self, path: Path, place: int, blocks: int) -> bytes:
        return f"{path.relative_to(self.folder).as_posix()}\n{place} of {blocks}".encode()
