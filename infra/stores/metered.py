"""A store that counts what is asked of another, and the seconds until it has answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.stores.base import ObjectInfo, ObjectStore
from infra.stores.patience import Patience


class Traffic:
    """What a store was asked. A call counts once, in however many requests the store's client carries it out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.calls = 0
        self.received_bytes = self.sent_bytes = 0
        self.seconds = 0.0
        """In all calls together, those that failed included."""
        self._clock, self._lock = clock, threading.Lock()

    @contextmanager
    def call(self) -> Iterator[None]:
        """While this lasts, somebody waits for the store."""
        began = self._clock()
        try:
            yield
        finally:
            with self._lock:
                self.calls += 1
                self.seconds += self._clock() - began

    def received(self, body: bytes) -> bytes:
        """These bytes came."""
        with self._lock:
            self.received_bytes += len(body)
        return body

    def sent(self, body: bytes | Path) -> None:
        """These bytes were taken."""
        with self._lock:
            self.sent_bytes += len(body) if isinstance(body, bytes) else body.stat().st_size


class Metered:
    """An ObjectStore in front of another, which does all the work."""

    def __init__(self, store: ObjectStore, traffic: Traffic):
        self._store, self.traffic = store, traffic

    def __repr__(self) -> str:
        return repr(self._store)

    def get(self, key: str, *, max_bytes: int | None = None, sha256: str | None = None) -> bytes:
        """See ObjectStore."""
        with self.traffic.call():
            return self.traffic.received(self._store.get(key, max_bytes=max_bytes, sha256=sha256))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See ObjectStore."""
        with self.traffic.call():
            return self.traffic.received(self._store.get_range(key, start, length))

    def put_once(self, key: str, body: bytes | Path, *, sha256: str | None = None, journal: Path | None = None) -> bool:
        """See ObjectStore."""
        with self.traffic.call():
            if created := self._store.put_once(key, body, sha256=sha256, journal=journal):
                self.traffic.sent(body)
            return created

    def head(self, key: str) -> ObjectInfo | None:
        """See ObjectStore."""
        with self.traffic.call():
            return self._store.head(key)

    def list(self, prefix: str) -> Iterator[str]:
        """See ObjectStore. Counts once; what comes page by page is not timed."""
        with self.traffic.call():
            return self._store.list(prefix)

    def within(self, patience: Patience) -> Metered:
        """See ObjectStore."""
        return Metered(self._store.within(patience), self.traffic)

    def __eq__(self, other: object) -> bool:
        """The same store with this patience, whoever counts."""
        return isinstance(other, Metered) and self._store == other._store

    def __hash__(self) -> int:
        return hash(("metered", self._store))
