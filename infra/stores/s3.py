"""A store in an S3 bucket, by conditional writes."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as ConnectError

from fedround.errors import ContractError, NotFoundError, StoreDeniedError, StoreError, StoreUnavailableError
from infra.stores.base import ObjectInfo, other_bytes, too_large
from infra.stores.keys import check_key, check_prefix, check_range

if TYPE_CHECKING:
    from botocore.loaders import Loader
    from botocore.session import Session
    from mypy_boto3_s3.client import S3Client

CONNECT_TIMEOUT_S = 20         # also the longest pause while a body is sent: a busy server may need it
READ_TIMEOUT_S = 60
_ATTEMPTS = 3                                        # of one request, by botocore: lost connections and 5xx answers
_CONFLICT_WAITS_S = (0.05, 0.1, 0.2, 0.4, 0.8)       # 409: two conditional writes met; AWS says try again

_DENIED = {"AccessDenied", "AllAccessDisabled", "403"}
_UNKNOWN_CREDENTIAL = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_OTHER_BYTES = {"BadDigest", "XAmzContentChecksumMismatch"}
_NO_SPACE = {"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "507"}


class S3Store:
    """An ObjectStore in one bucket of any S3 server that honours ``If-None-Match: *`` (see require_conditional_writes).

    Opening does not connect. Safe to use from threads and after a fork: every process has a client of its own. Bodies
    travel with their SHA-256, which the signature of the request covers and the server checks; whole objects are checked
    again on the way back.

    Not promised: that `put_once` returns True when the answer to a successful write was lost on the way. The repeated
    request then finds its own object and returns False, so compare the bytes where that matters (`publish` does).
    A body may have at most 5 GiB (one request). `endpoint`: "https://host[:port]"; `prefix`: "" or ends with '/'.
    """

    def __init__(self, endpoint: str, bucket: str, access_key: str, secret_key: str, region: str = "us-east-1",
                 prefix: str = ""):
        if prefix and not prefix.endswith("/"):
            raise ContractError(f"the store's prefix must end with '/', got {prefix!r}")
        check_prefix(prefix)
        self._endpoint, self._bucket, self._region, self._prefix = endpoint, bucket, region, prefix
        self._access_key, self._secret_key = access_key, secret_key
        self._client_and_pid: tuple[S3Client, int] | None = None

    def __repr__(self) -> str:
        return f"S3Store({self._endpoint}/{self._bucket}/{self._prefix})"

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """See ObjectStore."""
        with self._surprises(key):
            answer = self._client().get_object(Bucket=self._bucket, Key=self._name(key))
            with answer["Body"] as body:
                size = answer["ContentLength"]
                if max_bytes is not None and size > max_bytes:
                    raise too_large(key, size, max_bytes)
                return body.read()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See ObjectStore."""
        check_range(key, start, length)
        if length == 0:                              # S3 has no empty ranges
            if self.head(key) is None:
                raise NotFoundError(self._missing(key))
            return b""
        with self._surprises(key):
            try:
                answer = self._client().get_object(Bucket=self._bucket, Key=self._name(key),
                                                   Range=f"bytes={start}-{start + length - 1}")
            except ClientError as error:
                if _status(error) == 416:            # starts at the end of the object, or behind it
                    return b""
                raise
            with answer["Body"] as body:
                return body.read()

    def put_once(self, key: str, body: bytes | Path, *, sha256: str | None = None) -> bool:
        """See ObjectStore."""
        name = self._name(key)
        with body.open("rb") if isinstance(body, Path) else io.BytesIO(body) as source, self._surprises(key):
            checksum = base64.b64encode(_sha256(source) if sha256 is None else bytes.fromhex(sha256)).decode()
            for wait_s in (*_CONFLICT_WAITS_S, None):
                source.seek(0)
                try:
                    self._client().put_object(Bucket=self._bucket, Key=name, Body=source, IfNoneMatch="*",
                                              ChecksumSHA256=checksum)
                except ClientError as error:
                    if _status(error) == 412:
                        return False
                    if error.response.get("Error", {}).get("Code") in _OTHER_BYTES:
                        raise other_bytes(key) from None
                    if _status(error) != 409 or wait_s is None:
                        raise
                    time.sleep(wait_s)
                else:
                    return True
        raise AssertionError("unreachable")

    def head(self, key: str) -> ObjectInfo | None:
        """See ObjectStore."""
        try:
            with self._surprises(key):
                answer = self._client().head_object(Bucket=self._bucket, Key=self._name(key))
        except NotFoundError:
            return None
        return ObjectInfo(key, answer["ContentLength"])

    def list(self, prefix: str) -> Iterator[str]:
        """See ObjectStore."""
        check_prefix(prefix)
        with self._surprises(prefix):
            pages = self._client().get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix)
            names = [item["Key"] for page in pages for item in page.get("Contents", ())]
        # Sorted here: SeaweedFS walks folder by folder, which puts 'a/b' before 'a-b'; S3 itself does not.
        return iter(sorted(name.removeprefix(self._prefix) for name in names))

    def _name(self, key: str) -> str:
        check_key(key)
        return self._prefix + key

    def _client(self) -> S3Client:
        """The client of this process: connections must not be shared with the process that forked this one."""
        if self._client_and_pid is None or self._client_and_pid[1] != os.getpid():
            from botocore.config import Config

            # The signature covers the checksum's header, and with it the body: botocore would hash that once more.
            config = Config(signature_version="s3v4", s3={"addressing_style": "path", "payload_signing_enabled": False},
                            connect_timeout=CONNECT_TIMEOUT_S, read_timeout=READ_TIMEOUT_S,
                            retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"})
            client = _session().create_client(
                "s3", region_name=self._region, endpoint_url=self._endpoint, config=config,
                aws_access_key_id=self._access_key, aws_secret_access_key=self._secret_key)
            self._client_and_pid = cast("S3Client", client), os.getpid()
        return self._client_and_pid[0]

    @contextmanager
    def _surprises(self, key: str) -> Iterator[None]:
        """The client's errors as ours."""
        try:
            yield
        except ClientError as error:
            raise self._in_our_words(key, error.response) from None
        except (ConnectError, HTTPClientError) as error:
            raise StoreUnavailableError(f"the object store at {self._endpoint} does not answer "
                                        f"({type(error).__name__}, '{key}'): check the address, the network and that "
                                        "the server runs") from None
        except (BotoCoreError, ValueError) as error:
            raise StoreUnavailableError(f"the object store at {self._endpoint} could not be used for '{key}' "
                                        f"({type(error).__name__}): check the endpoint and the bucket's name") from None

    def _in_our_words(self, key: str, response: Any) -> StoreError:
        code = response.get("Error", {}).get("Code", "")
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        where = f"bucket '{self._bucket}' at {self._endpoint}"
        if code == "NoSuchBucket":
            return StoreUnavailableError(f"there is no {where}: create it, or check its name")
        if code in _UNKNOWN_CREDENTIAL:
            return StoreUnavailableError(f"{where} does not accept this credential ({code}): check the access key and "
                                         "the secret key, or ask the coordinator for new ones")
        if code in _NO_SPACE:
            return StoreUnavailableError(f"no space for '{key}' in {where}: ask its operator for more, then try again")
        if code in _DENIED or status == 403:
            return StoreDeniedError(f"this credential may not use '{key}' in {where}: a site may write below "
                                    "'sites/<its name>/' only")
        if status == 404:
            return NotFoundError(self._missing(key))
        return StoreUnavailableError(f"{where} could not serve '{key}' ({code or status}): try again, or ask its "
                                     "operator")

    def _missing(self, key: str) -> str:
        return f"no object '{key}' in bucket '{self._bucket}' at {self._endpoint}"


def _session() -> Session:
    """A session that shares the description of S3 with all others: reading it takes a fifth of a second and 15 MB."""
    from botocore.session import Session

    session = Session()
    session.register_component("data_loader", _loader())
    return session


@cache
def _loader() -> Loader:
    from botocore.loaders import create_loader

    return create_loader()


def _sha256(source: BinaryIO) -> bytes:
    return hashlib.file_digest(source, "sha256").digest()


def _status(error: ClientError) -> int:
    return error.response["ResponseMetadata"]["HTTPStatusCode"]
