"""Every ObjectStore keeps the same promises. A new store adds one line to `KINDS`."""

from __future__ import annotations

import hashlib
import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from fedround.errors import ConflictError, ContractError, NotFoundError, StoreError, TrustError
from infra.stores import (
    AtHand,
    DirectoryStore,
    MemoryStore,
    Metered,
    ObjectInfo,
    ObjectStore,
    S3Store,
    Traffic,
    publish,
    require_conditional_writes,
)
from tests.faulty.store import AskedAgain

KINDS = ["memory", "directory", "at hand", "metered", "faulty", pytest.param("s3", marks=pytest.mark.stack)]
Opener = Callable[[], ObjectStore]


@pytest.fixture(params=KINDS)
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens the same empty store again and again, as several members would."""
    if request.param == "memory":
        store = MemoryStore()
        return lambda: store
    if request.param == "at hand":
        behind = MemoryStore()
        return lambda: AtHand(behind, 1 << 20)
    if request.param == "metered":
        counted = MemoryStore()
        return lambda: Metered(counted, Traffic())
    if request.param == "faulty":
        faulty = AskedAgain(MemoryStore(), 1)
        return lambda: faulty
    if request.param == "directory":
        return lambda: DirectoryStore(tmp_path / "store")
    server, prefix = request.getfixturevalue("s3_server"), f"{uuid4().hex}/"
    return lambda: server.store(prefix)


@pytest.fixture
def store(opener: Opener) -> ObjectStore:
    return opener()


def test_what_is_put_is_what_everyone_gets(opener: Opener) -> None:
    assert opener().put_once("runs/r/plan.json", b"\x00plan\xff") is True
    assert opener().get("runs/r/plan.json") == b"\x00plan\xff"
    assert opener().head("runs/r/plan.json") == ObjectInfo("runs/r/plan.json", 6)


def test_a_second_put_is_refused_and_changes_nothing(store: ObjectStore) -> None:
    store.put_once("a/b", b"first")
    assert store.put_once("a/b", b"second") is False
    assert store.put_once("a/b", b"first") is False
    assert store.get("a/b") == b"first"


def test_publish_accepts_a_repetition_and_refuses_a_contradiction(store: ObjectStore) -> None:
    publish(store, "a/b", b"first")
    publish(store, "a/b", b"first")
    with pytest.raises(ConflictError, match="a/b"):
        publish(store, "a/b", b"other")


@pytest.mark.parametrize("form", [bytes, Path])
def test_a_body_that_has_not_the_digest_that_names_it_is_not_created(store: ObjectStore, tmp_path: Path, form: type) -> None:
    """A file that was damaged on disk must not lie under its key for good."""
    def body(content: bytes) -> bytes | Path:
        (tmp_path / "body").write_bytes(content)
        return content if form is bytes else tmp_path / "body"

    named = hashlib.sha256(b"noised once").hexdigest()
    with pytest.raises(StoreError, match="a/b.*SHA-256"):
        publish(store, "a/b", body(b"noised, and damaged"), sha256=named)
    assert store.head("a/b") is None
    publish(store, "a/b", body(b"noised once"), sha256=named)
    assert store.get("a/b") == b"noised once"


def test_of_eight_writers_at_once_exactly_one_wins(opener: Opener) -> None:
    stores, start = [opener() for _ in range(8)], threading.Barrier(8)
    bodies = [bytes([number]) * 200_000 for number in range(8)]

    def write(number: int, key: str) -> bool:
        start.wait()
        return stores[number].put_once(key, bodies[number])

    with ThreadPoolExecutor(8) as pool:
        for race in range(3):
            won = list(pool.map(write, range(8), [f"race/{race}"] * 8))
            assert sum(won) == 1
            assert opener().get(f"race/{race}") == bodies[won.index(True)]


def test_a_reader_sees_all_of_an_object_or_nothing(opener: Opener, tmp_path: Path) -> None:
    size, seen, writer_is_done = 8_000_000, [], threading.Event()
    source = tmp_path / "body"
    source.write_bytes(b"x" * size)

    def write() -> None:
        opener().put_once("big/one", source)
        writer_is_done.set()

    reader, writer = opener(), threading.Thread(target=write)
    writer.start()
    while not writer_is_done.is_set():
        info = reader.head("big/one")
        seen.append(0 if info is None else info.size_bytes)
        if "big/one" in reader.list("big/"):
            seen.append(len(reader.get("big/one")))
    writer.join()
    assert set(seen) <= {0, size}
    assert len(reader.get("big/one")) == size


def test_twenty_megabytes_from_a_file_arrive(store: ObjectStore, tmp_path: Path) -> None:
    body = bytes(range(256)) * (20_000_000 // 256)
    (tmp_path / "delta").write_bytes(body)
    assert store.put_once("sites/a/delta", tmp_path / "delta") is True
    assert store.get("sites/a/delta") == body
    assert store.get_range("sites/a/delta", 19_000_000, 300) == body[19_000_000:19_000_300]
    assert store.put_once("sites/a/delta", tmp_path / "delta") is False


def test_a_body_file_that_is_missing_makes_no_object(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.put_once("a", tmp_path / "missing")
    assert store.head("a") is None


def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    assert store.put_once("a/empty", b"") is True
    assert store.get("a/empty") == b""
    assert store.head("a/empty") == ObjectInfo("a/empty", 0)
    assert store.get_range("a/empty", 0, 10) == b""
    assert store.put_once("a/empty", b"more") is False


@pytest.mark.parametrize(("start", "length", "expected"), [
    (0, 10, b"0123456789"), (3, 4, b"3456"), (9, 1, b"9"), (8, 100, b"89"), (10, 1, b""), (50, 5, b""), (4, 0, b"")])
def test_ranges(store: ObjectStore, start: int, length: int, expected: bytes) -> None:
    store.put_once("digits", b"0123456789")
    assert store.get_range("digits", start, length) == expected


@pytest.mark.parametrize(("start", "length"), [(-1, 4), (0, -1)])
def test_a_range_is_not_negative(store: ObjectStore, start: int, length: int) -> None:
    store.put_once("digits", b"0123456789")
    with pytest.raises(ContractError, match="digits"):
        store.get_range("digits", start, length)


def test_a_cap_refuses_larger_objects_only(store: ObjectStore) -> None:
    store.put_once("ten", b"0123456789")
    assert store.get("ten", max_bytes=10) == b"0123456789"
    with pytest.raises(StoreError, match="'ten' has 10 bytes, at most 9"):
        store.get("ten", max_bytes=9)


def test_who_knows_the_digest_gets_those_bytes_and_no_others(store: ObjectStore) -> None:
    named, other = (hashlib.sha256(body).hexdigest() for body in (b"0123456789", b"other"))
    store.put_once("ten", b"0123456789", sha256=named)
    for _ in range(2):
        assert store.get("ten", sha256=named) == b"0123456789"
        with pytest.raises(TrustError, match="'ten'"):
            store.get("ten", sha256=other)
    with pytest.raises(StoreError, match="'ten' has 10 bytes, at most 9"):
        store.get("ten", max_bytes=9, sha256=named)
    with pytest.raises(NotFoundError, match="missing"):
        store.get("missing", sha256=other)


def test_what_is_missing_is_said_to_be_missing(store: ObjectStore) -> None:
    store.put_once("a/there", b"1")
    for key in ("a/missing", "nowhere/at/all", "a/there-not"):
        assert store.head(key) is None
        with pytest.raises(NotFoundError, match=key):
            store.get(key)
        for length in (0, 5):
            with pytest.raises(NotFoundError, match=key):
                store.get_range(key, 0, length)


def test_a_list_is_in_order_and_of_this_prefix_only(store: ObjectStore) -> None:
    keys = ["s/a-b/1", "s/a/2", "s/a/10", "s/a.c", "s/A", "s/ab/1", "s/b", "other/x"]
    for key in keys:
        store.put_once(key, b"1")
    assert list(store.list("")) == sorted(keys)
    assert list(store.list("s/")) == sorted(keys)[1:]
    assert list(store.list("s/a/")) == ["s/a/10", "s/a/2"]
    assert list(store.list("s/a")) == ["s/a-b/1", "s/a.c", "s/a/10", "s/a/2", "s/ab/1"]
    assert list(store.list("s/nothing")) == []
    assert list(store.list("nowhere/")) == []


def test_a_list_has_no_end_at_a_page(opener: Opener) -> None:
    """A server of S3 tells at most a thousand keys at once, or as few as it is asked for."""
    keys = [f"many/{number // 10}/{number:05d}" for number in range(110)]
    store = opener()
    if isinstance(store, S3Store):
        store._client().meta.events.register("provide-client-params.s3.ListObjectsV2", lambda params, **_: {
            **params, "MaxKeys": 25})
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda key: store.put_once(key, b"1"), keys))
    assert list(store.list("many/")) == sorted(keys)


BAD_KEYS = ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", "a/.", "a b", "ä", "a\\b", "a\n", "a\x00",
            "+unfinished/x", "a" * 201, "a/" * 460 + "a"]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_bad_keys_are_refused_everywhere(store: ObjectStore, key: str) -> None:
    for call in (lambda: store.put_once(key, b"1"), lambda: store.get(key), lambda: store.head(key),
                 lambda: store.get_range(key, 0, 1)):
        with pytest.raises(ContractError):
            call()


@pytest.mark.parametrize("prefix", ["/", "/a", "a//", "../", "a/../", "ä"])
def test_bad_prefixes_are_refused(store: ObjectStore, prefix: str) -> None:
    with pytest.raises(ContractError):
        store.list(prefix)


def test_keys_that_look_odd_but_are_not(store: ObjectStore) -> None:
    keys = ["...", "a..b/.c", "-", "_/-.-", "a" * 200]
    for key in keys:
        assert store.put_once(key, key.encode()) is True
    assert list(store.list("")) == sorted(keys)
    assert all(store.get(key) == key.encode() for key in keys)


def test_the_start_up_check_accepts_it(store: ObjectStore) -> None:
    require_conditional_writes(store, "probes")
    require_conditional_writes(store, "probes/")
    assert len(list(store.list("probes/"))) == 2


def _write_after_fork(store: ObjectStore, number: int, start: object, results: object) -> None:
    start.wait()                                   # type: ignore[attr-defined]
    results.put((number, store.put_once("race/one", bytes([number]) * 100_000)))      # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["directory", pytest.param("s3", marks=pytest.mark.stack)])
def test_of_eight_processes_with_an_inherited_store_exactly_one_wins(
        kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A store that was already used is still right after a fork: no process may share another's connections."""
    shared: ObjectStore = DirectoryStore(tmp_path) if kind == "directory" else (
        request.getfixturevalue("s3_server").store(f"{uuid4().hex}/"))
    shared.put_once("used", b"1")
    fork = multiprocessing.get_context("fork")
    start, results = fork.Barrier(8), fork.SimpleQueue()
    writers = [fork.Process(target=_write_after_fork, args=(shared, number, start, results)) for number in range(8)]
    for writer in writers:
        writer.start()
    won = dict(results.get() for _ in writers)
    for writer in writers:
        writer.join()
    winners = [number for number, created in won.items() if created]
    assert len(winners) == 1
    assert shared.get("race/one") == bytes(winners) * 100_000
