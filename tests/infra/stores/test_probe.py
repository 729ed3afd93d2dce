"""A store that does not write once is refused before it can harm a round."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedround.errors import StoreError
from infra.stores import MemoryStore, require_conditional_writes


class IgnoresTheCondition(MemoryStore):
    """As S3 servers of old: If-None-Match is accepted, and the object replaced."""

    def __repr__(self) -> str:
        return "the store at example.org"

    def put_once(self, key: str, body: bytes | Path, *, sha256: str | None = None, journal: Path | None = None) -> bool:
        self._objects[key] = bytes(body)
        return True


class RefusesButReplaces(IgnoresTheCondition):
    """Says no, and overwrites all the same."""

    def put_once(self, key: str, body: bytes | Path, *, sha256: str | None = None, journal: Path | None = None) -> bool:
        was_there = key in self._objects
        super().put_once(key, body)
        return not was_there


class NeverCreates(MemoryStore):
    """Says that everything is there already."""

    def put_once(self, key: str, body: bytes | Path, *, sha256: str | None = None, journal: Path | None = None) -> bool:
        super().put_once(key, body)
        return False


@pytest.mark.parametrize("kind", [IgnoresTheCondition, RefusesButReplaces, NeverCreates])
def test_a_store_that_does_not_write_once_is_refused(kind: type[MemoryStore]) -> None:
    with pytest.raises(StoreError, match="ignores If-None-Match") as refusal:
        require_conditional_writes(kind(), "probes")
    assert "another store" in str(refusal.value)


def test_the_message_names_the_store() -> None:
    with pytest.raises(StoreError, match=r"example\.org"):
        require_conditional_writes(IgnoresTheCondition(), "probes")


def test_every_check_uses_a_key_of_its_own_below_the_prefix() -> None:
    store = MemoryStore()
    for _ in range(3):
        require_conditional_writes(store, "sites/a/probes")
    keys = list(store.list(""))
    assert len(keys) == 3
    assert all(key.startswith("sites/a/probes/") for key in keys)
