"""How an object that travels in parts is cut, and the digest that it then has."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

PART_BYTES = 16 << 20
"""The digest of an object in parts is made of the parts' digests, so their size must not change."""


class OfParts:
    """What S3 calls the SHA-256 of an object that came in parts: the digest of their digests, and how many there are."""

    def __init__(self) -> None:
        self._digests, self._part, self._in_part = b"", hashlib.sha256(), 0

    def update(self, piece: bytes) -> None:
        """Add the next bytes."""
        view = memoryview(piece)
        while len(view) > 0:
            taken = view[:PART_BYTES - self._in_part]
            self._part.update(taken)
            self._in_part += len(taken)
            view = view[len(taken):]
            if self._in_part == PART_BYTES:
                self._end()

    @property
    def digests(self) -> tuple[str, ...]:
        """Of each part that has ended."""
        return tuple(self._digests[start:start + 32].hex() for start in range(0, len(self._digests), 32))

    @classmethod
    def of(cls, source: BinaryIO) -> tuple[str, int]:
        """Add all that is left of a file."""
        parts = cls()
        while block := source.read(1 << 20):
            parts.update(block)
        return parts.ended()

    def ended(self) -> tuple[str, int]:
        """The composite digest. No bytes may be added afterwards."""
        if self._in_part > 0:
            self._end()
        return hashlib.sha256(self._digests).hexdigest(), len(self._digests) // 32

    def _end(self) -> None:
        self._digests += self._part.digest()
        self._part, self._in_part = hashlib.sha256(), 0


def cut(source: BinaryIO) -> tuple[str, tuple[str, ...]]:
    """The digest of a whole file, and of each of its parts, read once."""
    whole, of_parts = hashlib.sha256(), OfParts()
    source.seek(0)
    while block := source.read(1 << 20):
        whole.update(block)
        of_parts.update(block)
    of_parts.ended()
    return whole.hexdigest(), of_parts.digests
