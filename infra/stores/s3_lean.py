"""Small requests to an S3 server, made by hand: a third of the processor time that boto3 takes to make one.

A round is some 200 requests of a few kilobytes. boto3 takes 1.5 ms of processor time for each, and these 0.5: two thirds go
into rules for endpoints, hooks and forms of answers that we do not use. What carries the request stays botocore's: its
session, with the connections, certificates and proxies. Bodies of a mebibyte and more, and what a server answers that is not
plain (another region, say), are left to boto3.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote, unquote_plus, urlsplit
from xml.etree import ElementTree

from botocore.awsrequest import AWSPreparedRequest, AWSResponse, HeadersDict
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError
from botocore.response import StreamingBody

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

SMALL_BYTES = 1 << 20
_UNSIGNED = "UNSIGNED-PAYLOAD"
_ELSEWHERE = {"AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect"}
_LIST = ("Name", "IsTruncated", "NextContinuationToken")
_NAMESPACE = re.compile(r"\{[^}]*\}")


class Lean:
    """The four requests of a store, with the names, arguments and answers of boto3's client, as far as they are used here."""

    def __init__(self, client: S3Client, endpoint: str, access_key: str, secret_key: str, region: str):
        self.whole = client
        """boto3's own client, for everything else."""
        self._endpoint, self._signer = endpoint.rstrip("/"), _Signer(access_key, secret_key, region)
        self._root = urlsplit(self._endpoint).path
        self._host = _host(self._endpoint)

    def get_object(self, Bucket: str, Key: str, Range: str | None = None,
                   IfMatch: str | None = None, ChecksumMode: str | None = None) -> Any:
        """An object, or a part of it, whose body is still to be read."""
        headers = {name: value for name, value in (("If-Match", IfMatch), ("Range", Range),
                                                   ("x-amz-checksum-mode", ChecksumMode)) if value is not None}
        answer = self._send("GET", f"/{Bucket}/{Key}", {}, headers, streams=True)
        if _is_elsewhere(answer, error := _error_of(answer, "GetObject")):
            more: dict[str, Any] = {"Range": Range, "IfMatch": IfMatch, "ChecksumMode": ChecksumMode}
            return self.whole.get_object(Bucket=Bucket, Key=Key, **{k: v for k, v in more.items() if v is not None})
        if error is not None:
            raise error
        said = _said(answer)
        return said | {"Body": StreamingBody(answer.raw, said["ContentLength"])}

    def head_object(self, Bucket: str, Key: str, ChecksumMode: str) -> Any:
        """What the server says of an object."""
        answer = self._send("HEAD", f"/{Bucket}/{Key}", {}, {"x-amz-checksum-mode": ChecksumMode})
        if _is_elsewhere(answer, error := _error_of(answer, "HeadObject")):
            return self.whole.head_object(Bucket=Bucket, Key=Key, ChecksumMode="ENABLED")
        if error is not None:
            raise error
        return _said(answer)

    def put_object(self, Bucket: str, Key: str, Body: IO[bytes], IfNoneMatch: str, ChecksumSHA256: str) -> Any:
        """Create an object, if nothing lies there."""
        size = Body.seek(0, 2)
        Body.seek(0)
        if size < SMALL_BYTES:
            answer = self._send("PUT", f"/{Bucket}/{Key}", {}, {
                "If-None-Match": IfNoneMatch, "x-amz-checksum-sha256": ChecksumSHA256}, Body.read())
            if not _is_elsewhere(answer, error := _error_of(answer, "PutObject")):
                if error is not None:
                    raise error
                return {}
            Body.seek(0)
        return self.whole.put_object(
            Bucket=Bucket, Key=Key, Body=Body, IfNoneMatch=IfNoneMatch, ChecksumSHA256=ChecksumSHA256)

    def list_objects_v2(self, Bucket: str, Prefix: str, ContinuationToken: str | None = None) -> Any:
        """A page of the keys that begin with the prefix."""
        more = {} if ContinuationToken is None else {"continuation-token": ContinuationToken}
        answer = self._send("GET", f"/{Bucket}", {"list-type": "2", "prefix": Prefix, "encoding-type": "url", **more}, {})
        if _is_elsewhere(answer, error := _error_of(answer, "ListObjectsV2")):
            token = {} if ContinuationToken is None else {"ContinuationToken": ContinuationToken}
            return self.whole.list_objects_v2(Bucket=Bucket, Prefix=Prefix, **token)    # type: ignore[arg-type]
        if error is not None:
            raise error
        return _page(answer.content)

    def _send(self, method: str, path: str, query: Mapping[str, str], headers: dict[str, str], body: bytes | None = None, *,
              streams: bool = False) -> AWSResponse:
        path = self._root + quote(path, safe="/-_.~")
        asked = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted(query.items()))
        signed = headers | self._signer.signature(method, self._host, path, asked, headers, datetime.now(UTC))
        url = self._endpoint.removesuffix(self._root) + path + (f"?{asked}" if asked else "")
        http = self.whole._endpoint.http_session        # type: ignore[attr-defined]
        return http.send(AWSPreparedRequest(method, url, HeadersDict({**signed, "User-Agent": "fedround"}), body, streams))


class _Signer:
    """AWS Signature Version 4, whose payload is covered by the header of its checksum.

    docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
    """

    def __init__(self, access_key: str, secret_key: str, region: str):
        self._access_key, self._region = access_key, region
        self._key_of = cache(lambda day: _key(secret_key, day, region))

    def signature(self, method: str, host: str, path: str, query: str, headers: dict[str, str],
                  now: datetime) -> dict[str, str]:
        """The headers that sign these and the request. path, query: as they are sent."""
        time, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        mine = {"X-Amz-Content-SHA256": _UNSIGNED, "X-Amz-Date": time}
        covered = dict(sorted({"host": host, **{name.lower(): value for name, value in (headers | mine).items()}}.items()))
        names, scope = ";".join(covered), f"{day}/{self._region}/s3/aws4_request"
        lines = "".join(f"{name}:{' '.join(value.split())}\n" for name, value in covered.items())
        request = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{_UNSIGNED}"
        to_sign = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = hmac.new(self._key_of(day), to_sign.encode(), hashlib.sha256).hexdigest()
        return mine | {"Authorization": f"AWS4-HMAC-SHA256 Credential={self._access_key}/{scope}, SignedHeaders={names}, "
                                        f"Signature={signature}"}


def _key(secret_key: str, day: str, region: str) -> bytes:
    key = f"AWS4{secret_key}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def _host(endpoint: str) -> str:
    """The address as the header says it: without the port that everybody expects."""
    parts = urlsplit(endpoint)
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return name if parts.port in (None, usual) else f"{name}:{parts.port}"


def _said(answer: AWSResponse) -> dict[str, Any]:
    """What an answer's headers say of an object. Raises ResponseParserError for something that is not from an S3 server."""
    headers = answer.headers
    try:
        length = int(headers["content-length"])
    except (KeyError, ValueError):
        raise ResponseParserError("an answer without its length") from None
    return {"ContentLength": length, "ETag": headers.get("etag"), "ChecksumSHA256": headers.get("x-amz-checksum-sha256"),
            "ContentRange": headers.get("content-range", "")}


def _error_of(answer: AWSResponse, operation: str) -> ClientError | None:
    """The error that an answer is, as boto3 says it; None: it is none."""
    if 200 <= answer.status_code < 300:
        return None
    code, words = str(answer.status_code), ""
    try:
        found = {_NAMESPACE.sub("", one.tag): one.text or "" for one in _parsed(answer.content or b"<none/>")}
        code, words = found.get("Code", code), found.get("Message", words)
    except ElementTree.ParseError:
        pass                            # a proxy's page
    return ClientError({"Error": {"Code": code, "Message": words}, "ResponseMetadata": {
        "HTTPStatusCode": answer.status_code,       # type: ignore[typeddict-item]
        "HTTPHeaders": {name.lower(): value for name, value in answer.headers.items()}}}, operation)


def _is_elsewhere(answer: AWSResponse, error: ClientError | None) -> bool:
    """Whether boto3 is to find out where the bucket lies, or in which region."""
    return error is not None and (300 <= answer.status_code < 400 or error.response["Error"]["Code"] in _ELSEWHERE)


def _parsed(document: bytes) -> ElementTree.Element:
    return ElementTree.fromstring(document)     # noqa: S314 - by the parser that botocore uses; Expat bounds what grows


def _page(document: bytes) -> dict[str, Any]:
    """A page of a list. Raises ResponseParserError."""
    page: dict[str, Any] = {"Contents": []}
    try:
        for element in _parsed(document):
            name = _NAMESPACE.sub("", element.tag)
            if name in _LIST:
                page[name] = element.text or ""
            elif name == "EncodingType":
                page["encoded"] = element.text == "url"
            elif name == "Contents":
                key = next((one.text or "" for one in element if _NAMESPACE.sub("", one.tag) == "Key"), "")
                page["Contents"].append({"Key": key})
    except ElementTree.ParseError as error:
        raise ResponseParserError(f"a list that is no XML: {error}") from None
    if page.pop("encoded", False):
        page["Contents"] = [{"Key": unquote_plus(found["Key"])} for found in page["Contents"]]
    page["IsTruncated"] = page.get("IsTruncated") == "true"
    return page
