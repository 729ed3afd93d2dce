"""What was seen under its digest is not fetched again, within a bound; everything else asks the store behind."""

import hashlib

import pytest

from fedround.errors import TrustError
from infra.stores import AtHand, MemoryStore


class Counting(MemoryStore):
    """Says what was fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def get(self, key: str, *, max_bytes: int | None = None, sha256: str | None = None) -> bytes:
        self.fetched.append(key)
        return super().get(key, max_bytes=max_bytes, sha256=sha256)


def named(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def test_what_this_process_put_or_got_by_its_digest_is_not_fetched_again() -> None:
    behind = Counting()
    behind.put_once("models/old", b"old")
    store = AtHand(behind, 100)
    assert store.put_once("models/new", b"new", sha256=named(b"new"))
    for _ in range(2):
        assert (store.get("models/new", sha256=named(b"new")), store.get("models/old", sha256=named(b"old"))) == (
            b"new", b"old")
    assert behind.fetched == ["models/old"]


def test_what_lies_in_a_place_is_fetched_each_time() -> None:
    """Whoever may write to the bucket may put other bytes there, and somebody may put the right ones back."""
    behind = Counting()
    store = AtHand(behind, 100)
    for body in (b"first", b"second"):
        behind._objects["runs/a"] = body
        assert store.get("runs/a") == body


def test_what_was_not_held_against_a_digest_stands_for_none() -> None:
    behind = Counting()
    behind.put_once("models/a", b"theirs")
    store = AtHand(behind, 100)
    assert store.get("models/a") == b"theirs"
    assert not store.put_once("models/a", b"ours", sha256=named(b"ours"))
    for _ in range(2):
        with pytest.raises(TrustError):
            store.get("models/a", sha256=named(b"ours"))
    assert store.get("models/a", sha256=named(b"theirs")) == b"theirs"
    assert behind.fetched == ["models/a"] * 4


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    behind = Counting()
    store = AtHand(behind, 10)
    bodies = {"models/a": b"aaaa", "models/b": b"bbbb", "models/c": b"cccc", "models/large": b"l" * 11}
    for key, body in bodies.items():
        assert store.put_once(key, body, sha256=named(body))
    for key in ("models/c", "models/b", "models/a", "models/large"):
        store.get(key, sha256=named(bodies[key]))
    assert behind.fetched == ["models/a", "models/large"]
