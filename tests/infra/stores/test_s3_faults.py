"""A real S3 server behind a proxy that does harm: what comes back is right, or it is one of our errors."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from fedround.errors import StoreError, StoreUnavailableError, TooSlowError, TrustError
from infra.documents import read_named
from infra.stores import Patience, S3Store, publish
from infra.stores import base as base_of_stores
from infra.stores import s3 as s3_store
from tests.faulty import proxy as faults
from tests.faulty.proxy import FaultyProxy, Harm, in_front_of

if TYPE_CHECKING:
    from tests.conftest import S3Server

pytestmark = pytest.mark.stack

BODY = hashlib.sha256(b"seed").digest() * 40_000      # 1.3 MB
DAMAGE = [faults.flip, faults.zero, faults.shorten, faults.cut, faults.empty, faults.in_trouble]


@pytest.fixture(scope="module")
def running(s3_server: S3Server) -> Iterator[FaultyProxy]:
    with in_front_of(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def proxy(running: FaultyProxy) -> FaultyProxy:
    running.harm, running.losing, running.seen = {}, 0, []
    return running


@pytest.fixture
def store(proxy: FaultyProxy, s3_server: S3Server) -> S3Store:
    credential = s3_server.credential
    return S3Store(proxy.endpoint, "fedround", credential.access_key, credential.secret_key, prefix=f"{uuid4().hex}/")


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_store, "_PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(base_of_stores, "_PAUSES_S", (0.0, 0.0))


@pytest.mark.parametrize("harm", DAMAGE)
def test_one_damaged_answer_is_fetched_again(store: S3Store, proxy: FaultyProxy, harm: Harm) -> None:
    store.put_once("models/a", BODY)
    proxy.harm = {"GET": [harm]}
    assert store.get("models/a") == BODY


@pytest.mark.parametrize("harm", DAMAGE)
def test_damage_again_and_again_is_one_of_our_errors(store: S3Store, proxy: FaultyProxy, harm: Harm) -> None:
    store.put_once("models/a", BODY)
    proxy.harm = {"GET": [harm] * 3}
    with pytest.raises(StoreUnavailableError, match=r"models/a|bucket"):
        store.get("models/a")


@pytest.mark.parametrize("harm", DAMAGE)
def test_what_a_signed_name_names_is_read_again_if_it_was_damaged(store: S3Store, proxy: FaultyProxy, harm: Harm) -> None:
    named = hashlib.sha256(BODY).hexdigest()
    store.put_once("models/a", BODY)
    proxy.harm = {"GET": [harm]}
    assert read_named(store, "models/a", named, "the model", max_bytes=None) == BODY


def test_the_same_damage_each_time_blames_nobody_and_other_bytes_that_lie_there_do(
        store: S3Store, proxy: FaultyProxy) -> None:
    named = hashlib.sha256(BODY).hexdigest()
    store.put_once("models/a", BODY)
    store.put_once("models/b", b"other bytes")
    proxy.harm = {"GET": [faults.flip] * 100}
    with pytest.raises(StoreUnavailableError):
        read_named(store, "models/a", named, "the model", max_bytes=None)
    proxy.harm = {}
    with pytest.raises(TrustError, match="the model: the stored bytes are not those"):
        read_named(store, "models/b", named, "the model")


def test_who_knows_the_digest_gets_those_bytes_or_an_error_at_once(store: S3Store, proxy: FaultyProxy) -> None:
    store.put_once("models/a", BODY)
    named = hashlib.sha256(BODY).hexdigest()
    proxy.harm = {"GET": [faults.flip]}
    with pytest.raises(TrustError, match="'models/a'"):
        store.get("models/a", sha256=named)
    proxy.harm = {"GET": [faults.cut, faults.cut]}
    assert store.get("models/a", sha256=named) == BODY


@pytest.mark.parametrize("harm", [faults.shorten, faults.cut, faults.empty, faults.in_trouble])
def test_a_range_has_its_length_or_is_one_of_our_errors(store: S3Store, proxy: FaultyProxy, harm: Harm) -> None:
    store.put_once("models/a", BODY)
    for length in (500_000, len(BODY)):
        proxy.harm = {"GET": [harm]}
        assert store.get_range("models/a", 1000, length) == BODY[1000:1000 + length]
    proxy.harm = {"GET": [harm] * 3}
    with pytest.raises(StoreUnavailableError):
        store.get_range("models/a", 1000, 500_000)


def test_cut_off_it_goes_on_where_it_was(store: S3Store, proxy: FaultyProxy) -> None:
    store.put_once("models/a", BODY)
    proxy.harm = {"GET": [faults.cut, faults.cut]}
    fetched: list[str] = []
    client = store._client()
    client.meta.events.register("before-send.s3.GetObject", lambda request, **_: fetched.append(
        str(request.headers.get("Range"))))
    assert store.get("models/a") == BODY
    half, rest = len(BODY) // 2, len(BODY) - len(BODY) // 2
    assert fetched == ["None", f"b'bytes={half}-'", f"b'bytes={half + rest // 2}-'"]


def test_a_body_that_was_lost_is_put_again_and_one_that_is_always_lost_is_no_success(
        store: S3Store, proxy: FaultyProxy) -> None:
    proxy.losing = 1
    publish(store, "sites/a/answer", b"mine")
    assert store.get("sites/a/answer") == b"mine"
    proxy.losing = 3
    with pytest.raises(StoreError, match=r"said that it had taken 'sites/a/other', and does not have it"):
        publish(store, "sites/a/other", b"mine")


def test_a_body_that_was_damaged_on_its_way_up_is_not_taken(store: S3Store, proxy: FaultyProxy, tmp_path: Path) -> None:
    """The server holds it against the digest, and it is sent again."""
    real, sent = proxy.RequestHandlerClass._ask, []

    def ask(self: object, body: bytes) -> faults.Answer:
        sent.append(body)
        return real(self, body[:-1] + bytes([body[-1] ^ 1]) if len(sent) == 1 else body)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proxy.RequestHandlerClass, "_ask", ask)
        assert store.put_once("models/a", BODY, sha256=hashlib.sha256(BODY).hexdigest())
    assert store.get("models/a") == BODY


def test_a_clock_is_called_a_clock(store: S3Store, proxy: FaultyProxy) -> None:
    for method, call in (("GET", lambda: store.get("a")), ("HEAD", lambda: store.head("a")),
                         ("PUT", lambda: store.put_once("a", b"1"))):
        proxy.harm = {method: [faults.skewed] * 3}
        with pytest.raises(StoreUnavailableError, match=r"clock .* differ by \d+ minutes.*credential is not the reason"):
            call()


@pytest.mark.parametrize("harm", [faults.gibberish, faults.page, faults.empty])
def test_what_is_no_s3_server_is_said_in_a_sentence(store: S3Store, proxy: FaultyProxy, harm: Harm) -> None:
    """A network that asks to be signed in to answers everything with a page: that is no empty bucket."""
    store.put_once("a", b"1")
    proxy.harm = {"GET": [harm] * 6, "HEAD": [faults.page] * 3}
    for call in (lambda: store.list(""), lambda: store.get("a"), lambda: store.head("a")):
        with pytest.raises(StoreUnavailableError):
            call()


def test_a_body_that_trickles_is_given_up_in_time(store: S3Store, proxy: FaultyProxy) -> None:
    """1.3 MB at 100 bytes a second would take hours, and never once be silent for long."""
    store.put_once("models/a", BODY)
    proxy.harm = {"GET": [faults.trickle]}
    with pytest.raises(TooSlowError, match="reading 'models/a' took longer than the 0.3 s"):
        store.within(Patience(0.3)).get("models/a")


def test_a_large_body_goes_in_parts_and_only_a_part_that_was_cut_is_sent_again(
        store: S3Store, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_store, "LARGE_BYTES", 17 << 20)
    body = os.urandom(1 << 20) * 20 + b"the end"
    (tmp_path / "delta").write_bytes(body)
    named = hashlib.sha256(body).hexdigest()
    proxy.harm = {"PUT": [None, faults.in_trouble]}
    publish(store, "sites/a/delta", tmp_path / "delta", sha256=named)
    assert [method for method, _ in proxy.seen].count("PUT") == 3
    info = store.head("sites/a/delta")
    assert info is not None
    assert info.of_parts is not None
    assert store.get("sites/a/delta") == body
    proxy.harm = {"GET": [faults.flip] * 3}
    with pytest.raises(StoreUnavailableError, match="another SHA-256"):
        store.get("sites/a/delta")
    assert store.put_once("sites/a/delta", tmp_path / "delta") is False
    publish(store, "sites/a/delta", tmp_path / "delta", sha256=named)
    publish(store, "sites/a/delta", body)
    with pytest.raises(StoreError, match="SHA-256"):
        store.put_once("sites/a/damaged", body[:-1] + b"X", sha256=named)


def test_of_two_large_bodies_at_once_one_wins(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both find nothing there, and send all their parts; the server holds the second one against what lies there then."""
    monkeypatch.setattr(s3_store, "LARGE_BYTES", 1 << 20)
    store = s3_server.store(f"{uuid4().hex}/")
    one, other = b"1" * (17 << 20), b"2" * (17 << 20)
    assert store.put_once("models/a", one)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Store, "head", lambda *_: None)
        assert store.put_once("models/a", other) is False
    assert store.get("models/a") == one
