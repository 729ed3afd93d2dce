"""A store that returns from memory what this process wrote or read last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from infra.stores.base import ObjectInfo, ObjectStore
from infra.stores.patience import Patience


class AtHand:
    """An ObjectStore in front of another: whole objects that their readers know by a digest, and that it saw last, are
    neither fetched nor hashed again.

    What is kept was held against its digest, so it is what every reader who knows that digest asks for. What lies in a place,
    and is known by no digest, is always fetched.
    Memory: at most `most_bytes`. An object that is larger is not kept.
    Not for a caller that must know what the store holds now: an auditor asks the store itself.
    """

    def __init__(self, store: ObjectStore, most_bytes: int, seen: OrderedDict[str, bytes] | None = None,
                 lock: threading.Lock | None = None):
        self._store, self._most_bytes = store, most_bytes
        self._seen = OrderedDict[str, bytes]() if seen is None else seen
        self._lock = threading.Lock() if lock is None else lock

    def __repr__(self) -> str:
        return repr(self._store)

    def get(self, key: str, *, max_bytes: int | None = None, sha256: str | None = None) -> bytes:
        """See ObjectStore."""
        body = None if sha256 is None else self._seen.get(sha256)
        if body is None or (max_bytes is not None and len(body) > max_bytes):
            body = self._store.get(key, max_bytes=max_bytes, sha256=sha256)
        self._keep(sha256, body)
        return body

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See ObjectStore."""
        return self._store.get_range(key, start, length)

    def put_once(self, key: str, body: bytes | Path, *, sha256: str | None = None, journal: Path | None = None) -> bool:
        """See ObjectStore."""
        created = self._store.put_once(key, body, sha256=sha256, journal=journal)
        if created and isinstance(body, bytes):
            self._keep(sha256, body)
        return created

    def head(self, key: str) -> ObjectInfo | None:
        """See ObjectStore."""
        return self._store.head(key)

    def list(self, prefix: str) -> Iterator[str]:
        """See ObjectStore."""
        return self._store.list(prefix)

    def within(self, patience: Patience) -> AtHand:
        """See ObjectStore."""
        return AtHand(self._store.within(patience), self._most_bytes, self._seen, self._lock)

    def _identity(self) -> tuple[object, ...]:
        return self._store, id(self._seen)

    def __eq__(self, other: object) -> bool:
        """The same store with this patience."""
        return isinstance(other, AtHand) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _keep(self, sha256: str | None, body: bytes) -> None:
        if sha256 is None or len(body) > self._most_bytes:
            return
        with self._lock:            # threads share a store
            self._seen[sha256] = body
            self._seen.move_to_end(sha256)
            while sum(map(len, self._seen.values())) > self._most_bytes:
                self._seen.popitem(last=False)
