"""A store that counts says what was asked, also of calls that fail, and for whoever asks it with another patience."""

from __future__ import annotations

import itertools

import pytest

from fedround.errors import NotFoundError
from infra.stores import MemoryStore, Metered, Patience, Traffic


def test_calls_bytes_and_seconds_are_counted_once(tmp_path):
    ticks = itertools.count()
    traffic = Traffic(lambda: float(next(ticks)))           # every call lasts one second
    store = Metered(MemoryStore(), traffic)
    (tmp_path / "file").write_bytes(b"12345")
    assert store.put_once("a/b", tmp_path / "file")
    assert not store.put_once("a/b", b"other")
    assert store.within(Patience(60.0)).get_range("a/b", 1, 2) == b"23"
    assert store.get("a/b") == b"12345"
    assert list(store.list("a/")) == ["a/b"]
    with pytest.raises(NotFoundError):
        store.get("a/c")
    assert store.head("a/c") is None
    assert (traffic.calls, traffic.seconds, traffic.sent_bytes, traffic.received_bytes) == (7, 7.0, 5, 7)
