"""A store in an S3 bucket, by conditional writes."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, TypeVar, cast

from fedround.errors import ContractError, NotFoundError
from infra.stores.base import ObjectInfo, other_bytes
from infra.stores.keys import check_key, check_prefix, check_range
from infra.stores.patience import Patience

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

    from infra.stores.s3_client import Clients

T = TypeVar("T")

LARGE_BYTES = 64 << 20
"""A body of this size or more travels in parts."""

CALL_S, SLOWEST_BYTES_PER_S = 180.0, 32 << 10
"""The time for a call without a patience of its own, and the slowest rate for its bytes, whose time is added."""

_PAUSES_S = (0.2, 1.0)                               # between the tries of one request: lost connections, 5xx, damaged bodies
_CONFLICT_PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8)      # 409: two conditional writes met; AWS says try again


class S3Store:
    """An ObjectStore in one bucket of any S3 server that honours ``If-None-Match: *`` (see require_conditional_writes).

    Opening does not connect. Safe to use from threads and after a fork: every process has a client of its own. Bodies
    travel with their SHA-256, which the signature of the request covers and the server checks; whole objects are held against
    it on the way back, and parts against their length. What was damaged or cut on the way is fetched again.

    Bodies of 64 MiB and more go in parts; after a call that was cut, the next with the same journal sends what is missing.
    Two such writers at once: exactly one wins where the server honours the condition also when the parts are put together
    (AWS S3, SeaweedFS 4.48).

    Not promised: that `put_once` returns True when the answer to a successful write was lost on the way. The repeated
    request then finds its own object and returns False, so compare the bytes where that matters (`publish` does).
    `endpoint`: "https://host[:port]"; `prefix`: "" or ends with '/'.
    """

    def __init__(self, endpoint: str, bucket: str, access_key: str, secret_key: str, region: str = "us-east-1",
                 prefix: str = ""):
        if prefix and not prefix.endswith("/"):
            raise ContractError(f"the store's prefix must end with '/', got {prefix!r}")
        check_prefix(prefix)
        self._endpoint, self._bucket, self._region, self._prefix = endpoint, bucket, region, prefix
        self._access_key, self._secret_key = access_key, secret_key
        self._patience: Patience | None = None

    def __repr__(self) -> str:
        return f"S3Store({self._endpoint}/{self._bucket}/{self._prefix})"

    def _identity(self) -> tuple[str, ...]:
        return self._endpoint, self._bucket, self._prefix, self._access_key, self._secret_key

    def __eq__(self, other: object) -> bool:
        """The same objects with the same credential, and this patience."""
        return isinstance(other, S3Store) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def within(self, patience: Patience) -> S3Store:
        """See ObjectStore."""
        other = S3Store(self._endpoint, self._bucket, self._access_key, self._secret_key, self._region, self._prefix)
        other.__dict__["_clients"] = self._clients
        other._patience = patience
        return other

    def get(self, key: str, *, max_bytes: int | None = None, sha256: str | None = None) -> bytes:
        """See ObjectStore."""
        name = self._name(key)
        from infra.stores.s3_body import Whole

        whole = Whole(self._bucket, name, key, max_bytes, sha256)
        return self._tried(key, f"reading '{key}'", whole.fetch)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See ObjectStore."""
        check_range(key, start, length)
        name = self._name(key)
        if length == 0:                              # S3 has no empty ranges
            if self.head(key) is None:
                raise NotFoundError(f"no object '{key}' in bucket '{self._bucket}' at {self._endpoint}")
            return b""
        from infra.stores.s3_body import fetch_range

        return self._tried(key, f"reading '{key}'", lambda client, timeout_s, patience: fetch_range(
            client, timeout_s, patience, self._bucket, name, key, start, length), length)

    def put_once(self, key: str, body: bytes | Path, *, sha256: str | None = None, journal: Path | None = None) -> bool:
        """See ObjectStore."""
        name = self._name(key)
        with body.open("rb") if isinstance(body, Path) else io.BytesIO(body) as source:
            if (size := source.seek(0, io.SEEK_END)) < LARGE_BYTES:
                return self._put(key, name, source, sha256 or _sha256(source), size)
            return self._put_large(key, name, source, body, sha256, journal)

    def head(self, key: str) -> ObjectInfo | None:
        """See ObjectStore."""
        name = self._name(key)
        from infra.stores.s3_body import info_of

        try:
            return self._tried(key, f"asking for '{key}'", lambda client, *_: info_of(key, client.head_object(
                Bucket=self._bucket, Key=name, ChecksumMode="ENABLED")))
        except NotFoundError:
            return None

    def list(self, prefix: str) -> Iterator[str]:
        """See ObjectStore."""
        check_prefix(prefix)
        patient, names, token = self.within(self._patience_for(0)), set[str](), ""
        while True:
            page, token = patient._page(prefix, token)
            names |= page
            if not token:       # sorted here: SeaweedFS walks folder by folder, which puts 'a/b' before 'a-b'; S3 does not
                return iter(sorted(names))

    def drop_unfinished(self, older_than: datetime) -> int:
        """Have the server drop the parts of large bodies that began to be sent before then and are not complete. No list of
        objects shows them, and they take space. Returns of how many bodies. A writer that goes on with one begins anew.
        """
        from infra.stores.s3_upload import drop_older

        return self._tried(self._prefix, "listing unfinished uploads", lambda client, *_: drop_older(
            client, self._bucket, self._prefix, older_than))

    def _put(self, key: str, name: str, source: BinaryIO, sha256: str, size: int) -> bool:
        """Put it in one request, which names the digest: a server takes no other bytes."""
        from botocore.exceptions import ClientError

        from infra.stores.s3_body import Outgoing
        from infra.stores.s3_client import DamagedError, are_other_bytes

        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()

        def request(client: S3Client, timeout_s: float, patience: Patience) -> bool:
            source.seek(0)
            try:
                client.put_object(Bucket=self._bucket, Key=name, Body=cast(IO[bytes], Outgoing(source, patience, key)),
                                  IfNoneMatch="*", ChecksumSHA256=checksum)
            except ClientError as error:
                if not are_other_bytes(error):
                    raise
                if _sha256(source) != sha256:
                    raise other_bytes(key) from None
                raise DamagedError(f"'{key}' did not arrive as it was sent", other_bytes(key)) from None
            return True

        return self._written_once(key, request, size)

    def _put_large(self, key: str, name: str, source: BinaryIO, body: bytes | Path, sha256: str | None,
                   journal: Path | None) -> bool:
        """Put it in parts. An object that is there already is not sent again, and parts that are there are not either."""
        from infra.stores.s3_upload import TRIES, Journal, Upload

        upload = Upload(self._bucket, name, key, body, Journal(journal, f"{self._endpoint}/{self._bucket}/{name}"))

        def request(client: S3Client, timeout_s: float, patience: Patience) -> bool:
            if self.head(key) is not None:
                return False
            if sha256 not in {None, upload.hashed(source)}:
                raise other_bytes(key)
            upload.send(self._clients.patient(patience.left_s, TRIES)[0], patience)
            return True

        try:
            created = self._written_once(key, request, source.seek(0, io.SEEK_END))
        except BaseException:
            if journal is None:
                upload.give_up(self._client())
            raise
        if not created:
            upload.give_up(self._client())
        return created

    def _written_once(self, key: str, request: Callable[[S3Client, float, Patience], bool], size: int) -> bool:
        """Whether this call created the object."""
        from botocore.exceptions import ClientError

        from infra.stores.s3_client import status

        def conditional(client: S3Client, timeout_s: float, patience: Patience) -> bool:
            for pause_s in (*_CONFLICT_PAUSES_S, None):
                try:
                    return request(client, timeout_s, patience)
                except ClientError as error:
                    if status(error) == 412:
                        return False
                    if status(error) != 409 or pause_s is None:
                        raise
                    patience.pause(pause_s, f"another writer of '{key}'")
            raise AssertionError("unreachable")

        return self._tried(key, f"sending '{key}'", conditional, size)

    def _page(self, prefix: str, token: str) -> tuple[set[str], str]:
        """Some keys, and the token to ask for the next ones; '': there are no more.

        Raises DamagedError if the list is of another bucket, or repeats this page's token.
        """
        from infra.stores.s3_client import DamagedError

        more = {"ContinuationToken": token} if token else {}

        def request(client: S3Client, *_: object) -> tuple[set[str], str]:
            page = client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix + prefix, **more)  # type: ignore[arg-type]
            following = page.get("NextContinuationToken", "") if page.get("IsTruncated") else ""
            if page.get("Name") != self._bucket or (page.get("IsTruncated") and following in {"", token}):
                raise DamagedError(f"the list of '{prefix}' is of another bucket, or repeats itself")
            return {item["Key"].removeprefix(self._prefix) for item in page.get("Contents", ())}, following

        return self._tried(prefix, f"listing '{prefix}'", request)

    def _tried(self, key: str, what: str, request: Callable[[S3Client, float, Patience], T], size: int = 0) -> T:
        """The result of a request. If it failed for a reason that may pass, it is sent again, within the patience."""
        from botocore.exceptions import ClientError

        from infra.stores.s3_client import PASSING, passes

        patience = self._patience_for(size)
        with self._surprises(key):
            for pause_s in (*_PAUSES_S, None):
                patience.check(what)
                try:
                    return request(*self._clients.patient(patience.left_s), patience)
                except (ClientError, *PASSING) as error:
                    patience.check(what)             # what was cut short by us is not the server's fault
                    if pause_s is None or (isinstance(error, ClientError) and not passes(error)):
                        raise
                    patience.pause(pause_s, f"{what} again, after {type(error).__name__}")
        raise AssertionError("unreachable")

    def _patience_for(self, size: int) -> Patience:
        own_s = CALL_S + size / SLOWEST_BYTES_PER_S
        return Patience(own_s) if self._patience is None else self._patience.at_most(own_s)

    def _name(self, key: str) -> str:
        check_key(key)
        return self._prefix + key

    @cached_property
    def _clients(self) -> Clients:
        from infra.stores.s3_client import Clients

        return Clients(self._endpoint, self._access_key, self._secret_key, self._region)

    def _client(self) -> S3Client:
        """The client that is used where there is time."""
        return self._clients.patient(CALL_S)[0]

    @contextmanager
    def _surprises(self, key: str) -> Iterator[None]:
        """The client's errors as ours."""
        from infra.stores.s3_client import in_our_words

        with in_our_words(self._endpoint, self._bucket, key):
            yield


def _sha256(source: BinaryIO) -> str:
    source.seek(0)
    return hashlib.file_digest(cast(io.BytesIO, source), "sha256").hexdigest()
