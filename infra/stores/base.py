"""What fedround asks of an object store, and nothing more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


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
        """The whole object. Raises NotFoundError; StoreError if it is larger than `max_bytes` (nothing is read then)."""
        ...

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """`length` bytes from `start`, fewer only at the end of the object. Raises NotFoundError."""
        ...

    def put_once(self, key: str, body: bytes | Path) -> bool:
        """Create the object, durably, unless one is there. True: this call created it. False: one was there already.

        Of many concurrent calls exactly one returns True; a reader never sees a part. `Path`: the file's bytes.
        """
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """What is there, or None."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Every key that starts with `prefix`, in order."""
        ...


def publish(store: ObjectStore, key: str, body: bytes) -> None:
    """Put `body` once; the same bytes already there are a success, other bytes a ConflictError."""
    from fedround.errors import ConflictError

    if not store.put_once(key, body) and store.get(key) != body:
        raise ConflictError(f"'{key}' exists with other bytes; objects are written once and never replaced")
