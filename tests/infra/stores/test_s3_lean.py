"""Requests made by hand are signed, answered and refused as boto3's are: the same server, the same bytes, the same errors."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from infra.stores import S3Store
from infra.stores.s3_client import Clients
from infra.stores.s3_lean import SMALL_BYTES, Lean, _host, _page, _Signer

if TYPE_CHECKING:
    from tests.conftest import S3Server

NOW = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC)
TEXT = st.text(st.characters(codec="ascii", exclude_categories=("C",)), min_size=1, max_size=20).map(str.strip).filter(len)


def botocores(method: str, url: str, headers: dict[str, str], key: str, secret: str, region: str) -> str:
    """The signature as botocore makes it."""
    request = AWSRequest(method=method, url=url, headers=dict(headers))
    request.context |= {"timestamp": NOW.strftime("%Y%m%dT%H%M%SZ"),
                        "client_config": Config(s3={"payload_signing_enabled": False})}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.auth.get_current_datetime", lambda: NOW)
        S3SigV4Auth(Credentials(key, secret), "s3", region).add_auth(request)
    return str(request.headers["Authorization"])


@given(method=st.sampled_from(["GET", "HEAD", "PUT"]),
       path=st.from_regex(r"/bucket(/[A-Za-z0-9._~-]{1,9}){0,3}", fullmatch=True),
       query=st.sampled_from(["", "encoding-type=url&list-type=2&prefix=runs%2F"]),
       headers=st.dictionaries(st.sampled_from(["Range", "If-Match", "x-amz-checksum-sha256"]), TEXT),
       secret=TEXT, region=st.sampled_from(["us-east-1", "eu-central-1"]),
       endpoint=st.sampled_from(["http://127.0.0.1:8333", "https://s3.example.org", "https://s3.example.org:443",
                                 "http://s3.example.org:443", "http://[::1]:9000"]))
def test_the_signature_is_botocores(method: str, path: str, query: str, headers: dict[str, str], secret: str, region: str,
                                    endpoint: str) -> None:
    mine = _Signer("key", secret, region).signature(method, _host(endpoint), path, query, headers, NOW)
    url = f"{endpoint}{path}{'?' if query else ''}{query}"
    assert mine["Authorization"] == botocores(method, url, headers, "key", secret, region)


def said(ask: Callable[[], Any]) -> Any:
    """What comes of a request, without what differs from time to time."""
    try:
        answer = ask()
    except ClientError as error:
        told, how = error.response["Error"]["Code"], error.response["ResponseMetadata"]
        return told, how["HTTPStatusCode"], "date" in how["HTTPHeaders"]
    if isinstance(answer, bytes):
        return answer
    found = {name: answer.get(name) for name in ("ContentLength", "ETag", "ChecksumSHA256", "ContentRange", "IsTruncated")
             if answer.get(name)}
    if "Contents" in answer:
        found["keys"] = [item["Key"] for item in answer["Contents"]]
    return found | ({"body": answer["Body"].read()} if "Body" in answer else {})


@pytest.fixture(scope="module")
def lean(s3_server: S3Server) -> Lean:
    credential = s3_server.credential
    return Clients(s3_server.endpoint, credential.access_key, credential.secret_key, "us-east-1").patient(60)[0]


@pytest.mark.stack
def test_every_answer_is_the_one_that_boto3_gives(lean: Lean, s3_server: S3Server) -> None:
    credential, at = s3_server.credential, uuid4().hex
    store = S3Store(s3_server.endpoint, "fedround", credential.access_key, credential.secret_key, prefix=f"{at}/")
    assert store.put_once("a/b", b"hello")
    assert store.put_once("a/b.c_d-e", b"there")
    stranger = Clients(s3_server.endpoint, credential.access_key, "no secret", "us-east-1").patient(60)[0]
    wanted = [("get_object", {"Key": key, **what}) for key in (f"{at}/a/b", f"{at}/nothing") for what in (
        {"ChecksumMode": "ENABLED"}, {"Range": "bytes=1-2"}, {"Range": "bytes=9-10"}, {"IfMatch": '"other"'})]
    wanted += [("head_object", {"Key": key, "ChecksumMode": "ENABLED"}) for key in (f"{at}/a/b", f"{at}/nothing")]
    wanted += [("list_objects_v2", {"Prefix": f"{at}/a"})]
    for one in (lean, stranger):
        for bucket in ("fedround", "no-such-bucket"):
            for name, named in wanted:
                mine, theirs = (said(partial(getattr(client, name), Bucket=bucket, **named)) for client in (one, one.whole))
                assert mine == theirs, (name, named)


@pytest.mark.stack
@pytest.mark.parametrize("body", [b"hello", b"hell"], ids=["whole", "damaged"])
def test_a_put_is_the_one_that_boto3_makes(lean: Lean, body: bytes) -> None:
    """A body with the announced digest is taken once; one with another digest never."""
    told = []
    for one in (lean, lean.whole):
        named = {"Bucket": "fedround", "Key": uuid4().hex, "IfNoneMatch": "*",
                 "ChecksumSHA256": "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="}

        def put(named: dict[str, str] = named, one: Any = one) -> Any:
            found = said(lambda: one.put_object(Body=io.BytesIO(body), **named))
            return found if isinstance(found, tuple) else "taken"

        told.append([put(), put(), said(lambda: lean.get_object(Bucket="fedround", Key=named["Key"]).get("Body").read())])  # noqa: B023
    assert told[0] == told[1]
    assert told[0][0] == "taken" if body == b"hello" else told[0][0][1] == 400


@pytest.mark.stack
def test_odd_keys_of_somebody_else_are_listed_as_they_are(lean: Lean) -> None:
    at = uuid4().hex
    for key in ("a b", "a+b", "ä", "a%20b", "a&b"):
        lean.whole.put_object(Bucket="fedround", Key=f"{at}/{key}", Body=b"")
    mine, theirs = (said(partial(one.list_objects_v2, Bucket="fedround", Prefix=f"{at}/")) for one in (lean, lean.whole))
    assert mine == theirs
    assert len(mine["keys"]) == 5


class Elsewhere:
    """boto3's client, which is asked where the server says that the bucket lies in another region."""

    def __init__(self, status: int, body: bytes):
        self.asked: list[str] = []
        self._endpoint = self
        self.http_session = self
        self._answer = status, body

    def send(self, request: Any) -> Any:
        status, body = self._answer
        return SimpleNamespace(status_code=status, headers={"content-length": str(len(body))}, content=body,
                               raw=io.BytesIO(body))

    def __getattr__(self, name: str) -> Callable[..., str]:
        return lambda **named: self.asked.append(name) or name


@pytest.mark.parametrize(("status", "code"), [(301, "PermanentRedirect"), (307, "TemporaryRedirect"),
                                              (400, "AuthorizationHeaderMalformed"), (301, "")])
def test_a_bucket_in_another_region_is_found_by_boto3(status: int, code: str) -> None:
    boto = Elsewhere(status, f"<Error><Code>{code}</Code></Error>".encode())
    lean = Lean(boto, "http://s3.example.org", "key", "secret", "us-east-1")      # type: ignore[arg-type]
    named = {"Bucket": "b", "Key": "k"}
    lean.get_object(**named)
    lean.head_object(**named, ChecksumMode="ENABLED")
    lean.put_object(**named, Body=io.BytesIO(b"1"), IfNoneMatch="*", ChecksumSHA256="")
    lean.list_objects_v2(Bucket="b", Prefix="p")
    assert boto.asked == ["get_object", "head_object", "put_object", "list_objects_v2"]


def test_a_large_body_is_boto3s() -> None:
    boto = Elsewhere(500, b"")
    Lean(boto, "http://s3.example.org", "key", "secret", "us-east-1").put_object(       # type: ignore[arg-type]
        Bucket="b", Key="k", Body=io.BytesIO(bytes(SMALL_BYTES)), IfNoneMatch="*", ChecksumSHA256="")
    assert boto.asked == ["put_object"]


def test_a_list_that_is_no_list_is_an_error() -> None:
    from botocore.parsers import ResponseParserError

    with pytest.raises(ResponseParserError, match="no XML"):
        _page(b"<html><p>welcome")
    assert _page(b"<html><body>welcome</body></html>")["Contents"] == []
