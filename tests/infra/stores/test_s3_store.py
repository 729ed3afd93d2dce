"""What only the S3 store can get wrong: the network, a server's answers, credentials. See also tests/conformance."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fedround.errors import ContractError, StoreDeniedError, StoreError, StoreUnavailableError
from infra.stores import S3Store

if TYPE_CHECKING:
    from tests.conftest import S3Server


class FakeServer(ThreadingHTTPServer):
    """Answers with the prepared statuses, in turn; remembers the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.answers: list[tuple[int, str]] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []

    def store(self) -> S3Store:
        return S3Store(f"http://127.0.0.1:{self.server_port}", "bucket", "key", "secret")


class _Answer(BaseHTTPRequestHandler):
    server: FakeServer
    protocol_version = "HTTP/1.1"                    # answers "Expect: 100-continue" at once

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append((self.command, dict(self.headers), body))
        status, code = self.server.answers.pop(0)
        text = b"" if status == 200 else f"<Error><Code>{code}</Code></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT

    def log_message(self, *_: object) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    thread = threading.Thread(target=fake.serve_forever, daemon=True)
    thread.start()
    yield fake
    fake.shutdown()
    fake.server_close()
    thread.join()


def test_a_put_carries_the_condition_and_the_digest(server: FakeServer) -> None:
    server.answers = [(200, "")]
    assert server.store().put_once("a/b", b"hello") is True
    [(_, headers, body)] = server.requests
    assert headers["If-None-Match"] == "*"
    assert headers["x-amz-checksum-sha256"] == "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="
    assert body == b"hello"


def test_the_signature_covers_the_digest_that_covers_the_body(server: FakeServer) -> None:
    """So nobody on the way can exchange both, and the body is not hashed a second time to be signed."""
    server.answers = [(200, "")] * 2
    known = hashlib.sha256(b"hello").hexdigest()
    assert server.store().put_once("a/b", b"hello")
    assert server.store().put_once("a/b", b"hello", sha256=known)
    [first, second] = [headers for _, headers, _ in server.requests]
    assert "x-amz-checksum-sha256" in first["Authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    assert first["x-amz-checksum-sha256"] == second["x-amz-checksum-sha256"]


def test_412_is_an_expected_answer(server: FakeServer) -> None:
    server.answers = [(412, "PreconditionFailed")]
    assert server.store().put_once("a", b"1") is False
    assert len(server.requests) == 1


def test_after_409_the_same_bytes_are_sent_again(server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"delta")
    server.answers = [(409, "ConditionalRequestConflict")] * 2 + [(200, "")]
    assert server.store().put_once("a", tmp_path / "body") is True
    assert [body for _, _, body in server.requests] == [b"delta"] * 3


def test_409_without_end_is_given_up(server: FakeServer) -> None:
    server.answers = [(409, "ConditionalRequestConflict")] * 50
    with pytest.raises(StoreUnavailableError, match="ConditionalRequestConflict"):
        server.store().put_once("a", b"1")
    assert len(server.requests) == 6


@pytest.mark.parametrize(("status", "code", "error", "words"), [
    (403, "AccessDenied", StoreDeniedError, "this credential may not use 'a'"),
    (403, "InvalidAccessKeyId", StoreUnavailableError, "does not accept this credential"),
    (403, "SignatureDoesNotMatch", StoreUnavailableError, "check the access key and the secret key"),
    (404, "NoSuchBucket", StoreUnavailableError, "there is no bucket 'bucket'"),
    (507, "InsufficientStorage", StoreUnavailableError, "no space for 'a'"),
    (400, "BadDigest", StoreError, "'a': the SHA-256"),
    (400, "MalformedXML", StoreUnavailableError, "MalformedXML"),
])
def test_answers_become_our_errors(server: FakeServer, status: int, code: str, error: type[StoreError],
                                   words: str) -> None:
    server.answers = [(status, code)] * 3
    with pytest.raises(error, match=words):
        server.store().put_once("a", b"1")


def test_a_server_in_trouble_is_asked_three_times(server: FakeServer) -> None:
    server.answers = [(503, "SlowDown")] * 2 + [(200, "")]
    assert server.store().put_once("a", b"1") is True
    server.answers = [(500, "InternalError")] * 3
    with pytest.raises(StoreUnavailableError, match="InternalError"):
        server.store().put_once("b", b"1")


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid", "not an address"])
def test_a_wrong_address_is_said(endpoint: str) -> None:
    with pytest.raises(StoreUnavailableError, match="the object store at"):
        S3Store(endpoint, "bucket", "key", "secret").get("a")


def test_an_address_where_nobody_answers_is_said_within_two_minutes(server: FakeServer) -> None:
    config = server.store()._client().meta.config
    assert config.connect_timeout * config.retries["total_max_attempts"] <= 120


def test_secrets_are_in_no_message(server: FakeServer) -> None:
    store = S3Store(f"http://127.0.0.1:{server.server_port}", "bucket", "the-access-key", "the-secret-key")
    server.answers = [(403, "SignatureDoesNotMatch")]
    with pytest.raises(StoreError) as refusal:
        store.get("a")
    for text in (str(refusal.value), repr(store)):
        assert "the-secret-key" not in text
        assert "the-access-key" not in text


@pytest.mark.parametrize("prefix", ["team", "/", "../", "a//"])
def test_a_bad_prefix_of_the_store_is_refused(prefix: str) -> None:
    with pytest.raises(ContractError):
        S3Store("http://127.0.0.1:9", "bucket", "key", "secret", prefix=prefix)


@pytest.mark.stack
def test_a_prefix_keeps_two_stores_in_one_bucket_apart(s3_server: S3Server) -> None:
    one, other = s3_server.store("prefix-one/"), s3_server.store("prefix-other/")
    assert one.put_once("a", b"1") is True
    assert other.put_once("a", b"2") is True
    assert list(one.list("")) == ["a"]
    assert one.get("a") == b"1"
    assert s3_server.store().get("prefix-other/a") == b"2"


@pytest.mark.stack
def test_another_bucket_is_out_of_reach_and_not_made(s3_server: S3Server) -> None:
    store = S3Store(s3_server.endpoint, "elsewhere", s3_server.credential.access_key, s3_server.credential.secret_key)
    for call in (lambda: store.get("a"), lambda: store.put_once("a", b"1"), lambda: store.list("")):
        with pytest.raises(StoreDeniedError, match="bucket 'elsewhere'"):
            call()


@pytest.mark.stack
@pytest.mark.parametrize(("access_key", "secret_key"), [(None, "wrong"), ("wrong", "wrong")])
def test_a_wrong_credential_is_said_to_be_wrong(s3_server: S3Server, access_key: str | None, secret_key: str) -> None:
    store = S3Store(s3_server.endpoint, "fedround", access_key or s3_server.credential.access_key, secret_key)
    with pytest.raises(StoreUnavailableError, match="does not accept this credential"):
        store.get("a")
