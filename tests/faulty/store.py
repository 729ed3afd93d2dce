"""An object store that does harm, by a seed: the same harm again for whoever asks for the same again in the same order."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from fedround.errors import StoreDeniedError, StoreUnavailableError
from infra.stores import ObjectInfo, ObjectStore, Patience
from infra.stores.base import held

T = TypeVar("T")

READING = ("flip", "zero", "truncate", "empty", "in trouble", "cut", "denied for once")
"""What may happen to what is read."""
WRITING = ("lost", "answer lost", "twice", "in trouble")
"""A body that is not kept, an answer that does not arrive, a request that is delivered twice, one that is not."""
LISTING = ("hides", "repeats", "hides the last")

ALL = tuple(f"{when} {what}" for when, what in (
    *(("get", what) for what in READING), *(("put", what) for what in WRITING), *(("list", what) for what in LISTING)))


class FaultyStore:
    """An ObjectStore in front of another. `faults` names what may happen (of `ALL`), `rate` how often.

    most: how much harm it does in all; then it is well. What it does passes: never the same to the same key twice in a row.
    It never makes up an object.
    """

    def __init__(self, store: ObjectStore, seed: int, faults: tuple[str, ...] = ALL, rate: float = 0.2,
                 most: int = 1_000_000):
        self._store, self._faults, self._rate, self._left = store, frozenset(faults), rate, most
        self._chance = random.Random(seed)
        self.done: list[tuple[str, str]] = []
        """What was done, and to which key."""

    def __repr__(self) -> str:
        return "FaultyStore()"

    def get(self, key: str, *, max_bytes: int | None = None, sha256: str | None = None) -> bytes:
        """See ObjectStore."""
        return held(self._harmed(key, self._store.get(key, max_bytes=max_bytes)), sha256, key)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See ObjectStore."""
        return self._harmed(key, self._store.get_range(key, start, length))

    def put_once(self, key: str, body: bytes | Path, *, sha256: str | None = None, journal: Path | None = None) -> bool:
        """See ObjectStore."""
        match self._fault("put", WRITING, key):
            case "lost":
                return self._store.head(key) is None
            case "in trouble":
                raise StoreUnavailableError(f"no answer about '{key}' (503)")
            case "answer lost":
                self._store.put_once(key, body, sha256=sha256, journal=journal)
                raise StoreUnavailableError(f"the answer about '{key}' was lost")
            case "twice":
                self._store.put_once(key, body, sha256=sha256, journal=journal)
        return self._store.put_once(key, body, sha256=sha256, journal=journal)

    def head(self, key: str) -> ObjectInfo | None:
        """See ObjectStore."""
        return self._store.head(key)

    def list(self, prefix: str) -> Iterator[str]:
        """See ObjectStore."""
        keys = list(self._store.list(prefix))
        match self._fault("list", LISTING, prefix) if keys else "":
            case "hides":
                keys.remove(self._chance.choice(keys))
            case "hides the last":
                keys.pop()
            case "repeats":
                keys = sorted([*keys, self._chance.choice(keys)])
        return iter(keys)

    def within(self, patience: Patience) -> ObjectStore:
        """See ObjectStore."""
        return self

    def _fault(self, when: str, kinds: tuple[str, ...], key: str) -> str:
        before = next((what for what, harmed in reversed(self.done) if harmed == key), "")
        possible = [what for what in kinds if f"{when} {what}" in self._faults and f"{when} {what}" != before]
        if not possible or self._left == 0 or self._chance.random() >= self._rate:
            return ""
        self._left -= 1
        what = self._chance.choice(possible)
        self.done.append((f"{when} {what}", key))
        return what

    def _harmed(self, key: str, body: bytes) -> bytes:
        match self._fault("get", READING, key):
            case "flip" if body:
                harmed = bytearray(body)
                harmed[self._chance.randrange(len(body))] ^= 1 << self._chance.randrange(8)
                return bytes(harmed)
            case "zero":
                return bytes(len(body))
            case "truncate":
                return body[:self._chance.randrange(len(body) + 1)]
            case "empty":
                return b""
            case "in trouble" | "cut":
                raise StoreUnavailableError(f"no answer about '{key}'")
            case "denied for once":
                raise StoreDeniedError(f"this credential may not use '{key}'")
        return body


class AskedAgain(FaultyStore):
    """A store in trouble now and then, as who asks again sees it: it keeps every promise that the one behind it keeps."""

    def __init__(self, store: ObjectStore, seed: int):
        super().__init__(store, seed, ("get in trouble", "get cut", "put in trouble"), rate=0.3)

    def get(self, key: str, *, max_bytes: int | None = None, sha256: str | None = None) -> bytes:
        """See ObjectStore."""
        return _until_it_answers(lambda: FaultyStore.get(self, key, max_bytes=max_bytes, sha256=sha256))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See ObjectStore."""
        return _until_it_answers(lambda: FaultyStore.get_range(self, key, start, length))

    def put_once(self, key: str, body: bytes | Path, *, sha256: str | None = None, journal: Path | None = None) -> bool:
        """See ObjectStore."""
        return _until_it_answers(lambda: FaultyStore.put_once(self, key, body, sha256=sha256, journal=journal))


def _until_it_answers(ask: Callable[[], T]) -> T:
    for _ in range(100):
        try:
            return ask()
        except StoreUnavailableError:
            continue
    raise AssertionError("a hundred tries")
