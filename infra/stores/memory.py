"""A store in this process's memory: real code with the real contract, for tests and simulations."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

from fedround.errors import NotFoundError
from infra.stores.base import ObjectInfo, held, other_bytes, too_large
from infra.stores.keys import check_key, check_prefix, check_range
from infra.stores.patience import Patience


class MemoryStore:
    """An ObjectStore for one process and its threads. Gone with the process; a forked child gets its own copy."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return "MemoryStore()"

    def get(self, key: str, *, max_bytes: int | None = None, sha256: str | None = None) -> bytes:
        """See ObjectStore."""
        body = self._body(key)
        if max_bytes is not None and len(body) > max_bytes:
            raise too_large(key, len(body), max_bytes)
        return held(body, sha256, key)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See ObjectStore."""
        check_range(key, start, length)
        return self._body(key)[start:start + length]

    def put_once(self, key: str, body: bytes | Path, *, sha256: str | None = None, journal: Path | None = None) -> bool:
        """See ObjectStore."""
        check_key(key)
        content = body.read_bytes() if isinstance(body, Path) else bytes(body)
        if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise other_bytes(key)
        with self._lock:
            if key in self._objects:
                return False
            self._objects[key] = content
            return True

    def head(self, key: str) -> ObjectInfo | None:
        """See ObjectStore."""
        check_key(key)
        body = self._objects.get(key)
        return None if body is None else ObjectInfo(key, len(body))

    def list(self, prefix: str) -> Iterator[str]:
        """See ObjectStore."""
        check_prefix(prefix)
        with self._lock:
            keys = sorted(key for key in self._objects if key.startswith(prefix))
        return iter(keys)

    def within(self, patience: Patience) -> MemoryStore:
        """See ObjectStore."""
        return self

    def _body(self, key: str) -> bytes:
        check_key(key)
        try:
            return self._objects[key]
        except KeyError:
            raise NotFoundError(f"no object '{key}' in the store in memory") from None
