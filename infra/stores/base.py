"""All that fedround needs from an object store."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fedround.errors import ConflictError, StoreError, TooLargeError, TrustError
from infra.stores.parts import OfParts
from infra.stores.patience import Patience
from infra.stores.reading import judged

_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class ObjectInfo:
    """What a store says about one object, without sending it."""

    key: str
    size_bytes: int
    sha256: str | None = field(default=None, compare=False)
    """The digest that the store computed from the bytes when they came; None: it has none."""
    of_parts: tuple[str, int] | None = field(default=None, compare=False)
    """For an object that came in parts: the digest of their digests, and how many there are."""


class ObjectStore(Protocol):
    """A write-once view of an object store.

    Keys are relative, '/'-separated and made of ``[A-Za-z0-9._-]`` parts; a part is never '.' or '..' (ContractError).
    There is no overwrite and no delete. Every method raises StoreUnavailableError when the store does not answer (or has
    no space), StoreDeniedError when the credential may not, NotFoundError where it says so; each message names the
    store and the key and says what to check.
    """

    def get(self, key: str, *, max_bytes: int | None = None, sha256: str | None = None) -> bytes:
        """The whole object. Raises NotFoundError; TooLargeError, before any byte is read, if it is larger than
        `max_bytes`.
        sha256: the digest that the caller knows the bytes by. They are held against it: TrustError for others. None: a store
        that has a digest of its own holds them against that.
        """
        ...

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """`length` bytes from `start`, fewer only at the end of the object. Raises NotFoundError."""
        ...

    def put_once(self, key: str, body: bytes | Path, *, sha256: str | None = None, journal: Path | None = None) -> bool:
        """Create the object, durably, unless one is there. True: this call created it. False: one was there already.

        Of many concurrent calls exactly one returns True; a reader never sees a part. `Path`: the file's bytes.
        sha256: the digest that the caller knows the body by. A body with another one is never created (StoreError): a
        damaged file does not take the place of the good one for good.
        journal: where a store that sends a large body in parts writes down which have arrived. The next call with the same
        body and journal goes on there. The store removes the file when nothing is under way. None: a failed call leaves no
        parts.
        """
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """What is there, or None."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Every key that starts with `prefix`, once, in order."""
        ...

    def within(self, patience: Patience) -> ObjectStore:
        """The same store, whose calls raise TooSlowError once the patience is over. A store that never waits: itself."""
        ...

    def __hash__(self) -> int:
        """Two views of the same store are equal."""
        ...


_PAUSES_S = (0.1, 0.5)
"""The pauses before the next try to put an object that the store said it had taken."""


def publish(store: ObjectStore, key: str, body: bytes | Path, *, sha256: str | None = None,
            journal: Path | None = None) -> None:
    """Put `body` once, and return when the store is seen to have it: its digest, or without a digest the bytes themselves.

    If the same bytes are already there, that is a success; other bytes are a ConflictError. A body that the store said it had
    taken, and does not have, is put again. StoreError if that does not help.
    sha256, journal: as `put_once`.
    """
    for pause_s in (*_PAUSES_S, None):
        store.put_once(key, body, sha256=sha256, journal=journal)
        if (info := store.head(key)) is not None:
            if not _holds(store, info, body, sha256):
                raise ConflictError(f"'{key}' exists with other bytes; objects are written once and never replaced")
            return
        if pause_s is not None:
            time.sleep(pause_s)
    raise lost(store, key)


def put_first(store: ObjectStore, key: str, document: bytes) -> None:
    """Put `document` unless something lies there, and return when the store is seen to have one or the other.

    Raises StoreError if the store says several times that it has taken it, and has nothing.
    """
    for pause_s in (*_PAUSES_S, None):
        store.put_once(key, document)
        if store.head(key) is not None:
            return
        if pause_s is not None:
            time.sleep(pause_s)
    raise lost(store, key)


def lost(store: ObjectStore, key: str) -> StoreError:
    """The error for an object that a store said it had taken, and does not have."""
    return StoreError(f"{store!r} said that it had taken '{key}', and does not have it. Nothing is lost here: try again, and "
                      "if it happens again, tell the store's operator")


def other_bytes(key: str) -> StoreError:
    """The error for a body that does not have the announced digest."""
    return StoreError(f"'{key}': the SHA-256 of the bytes to be stored is not the expected one, and nothing was stored; they "
                      "were altered on this machine's disk or on the way. Restore the file from your backup, then try again")


def held(body: bytes, sha256: str | None, key: str) -> bytes:
    """The bytes, if they have the digest that their reader knows them by (None: it knows none). Raises TrustError."""
    if sha256 is not None and hashlib.sha256(body).hexdigest() != sha256:
        raise unlike(key)
    return body


def unlike(key: str) -> TrustError:
    """The error for an object that does not have the digest that its reader knows it by."""
    return TrustError(f"'{key}': the bytes that came are not those that its reader knows by their SHA-256")


def too_large(key: str, size_bytes: int, max_bytes: int) -> TooLargeError:
    """The error for an object that is larger than its reader expects."""
    return TooLargeError(f"'{key}' has {size_bytes} bytes, at most {max_bytes} were expected: it is not what belongs "
                         "there; ask who wrote it")


def _holds(store: ObjectStore, info: ObjectInfo, body: bytes | Path, sha256: str | None) -> bool:
    """Whether the object is these bytes. If the store has a digest of its own, nothing is fetched."""
    with body.open("rb") if isinstance(body, Path) else io.BytesIO(body) as source:
        if info.size_bytes != source.seek(0, io.SEEK_END):
            return False
        source.seek(0)
        if info.sha256 is not None:
            return info.sha256 == (sha256 or hashlib.file_digest(source, "sha256").hexdigest())
        if info.of_parts is not None:
            return info.of_parts == OfParts.of(source)
        return all(_same(store, info.key, start, source.read(_CHUNK_BYTES))
                   for start in range(0, info.size_bytes, _CHUNK_BYTES))


def _same(store: ObjectStore, key: str, start: int, expected: bytes) -> bool:
    """Whether the object has these bytes from `start` on."""
    def judge(found: bytes) -> None:
        if found != expected:
            raise ConflictError

    try:
        judged(lambda: store.get_range(key, start, len(expected)), judge, f"'{key}'")
    except ConflictError:
        return False
    return True
