"""What fedround asks of an object store, and nothing more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fedround.errors import ConflictError, StoreError, TooLargeError

_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class ObjectInfo:
    """What a store says about one object."""

    key: str
    size_bytes: int


class ObjectStore(Protocol):
    """A write-once view of an object store.

    Keys are relative, '/'-separated and made of ``[A-Za-z0-9._-]`` parts; a part is never '.' or '..' (ContractError).
    There is no overwrite and no delete. Every method raises StoreUnavailableError when the store does not answer (or has
    no space), StoreDeniedError when the credential may not, NotFoundError where it says so; each message names the
    store and the key and says what to check.
    """

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """The whole object. Raises NotFoundError; TooLargeError, before any byte is read, if it is larger than
        `max_bytes`.
        """
        ...

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """`length` bytes from `start`, fewer only at the end of the object. Raises NotFoundError."""
        ...

    def put_once(self, key: str, body: bytes | Path, *, sha256: str | None = None) -> bool:
        """Create the object, durably, unless one is there. True: this call created it. False: one was there already.

        Of many concurrent calls exactly one returns True; a reader never sees a part. `Path`: the file's bytes.
        sha256: the digest that the caller knows the body by. A body with another one is never created (StoreError): a
        damaged file does not take the place of the good one for good.
        """
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """What is there, or None."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Every key that starts with `prefix`, in order."""
        ...


def publish(store: ObjectStore, key: str, body: bytes | Path, *, sha256: str | None = None) -> None:
    """Put `body` once; the same bytes already there are a success, other bytes a ConflictError. sha256: as `put_once`."""
    if not store.put_once(key, body, sha256=sha256) and not _holds(store, key, body):
        raise ConflictError(f"'{key}' exists with other bytes; objects are written once and never replaced")


def other_bytes(key: str) -> StoreError:
    """For a body that does not have the digest that it was announced with."""
    return StoreError(f"'{key}': the SHA-256 of the bytes to be stored is not the expected one, and nothing was stored; they "
                      "were altered on this machine's disk or on the way. Restore the file from your backup, then try again")


def too_large(key: str, size_bytes: int, max_bytes: int) -> TooLargeError:
    """For an object that is larger than its reader expects."""
    return TooLargeError(f"'{key}' has {size_bytes} bytes, at most {max_bytes} were expected: it is not what belongs "
                         "there; ask who wrote it")


def _holds(store: ObjectStore, key: str, body: bytes | Path) -> bool:
    info = store.head(key)
    if isinstance(body, bytes):
        return info is not None and info.size_bytes == len(body) and store.get(key) == body
    if info is None or info.size_bytes != body.stat().st_size:
        return False
    with body.open("rb") as file:
        return all(file.read(_CHUNK_BYTES) == store.get_range(key, start, _CHUNK_BYTES)
                   for start in range(0, info.size_bytes, _CHUNK_BYTES))
