"""Bodies on their way from a server: whole, checked, and within a patience; and how an object is cut into parts."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, BinaryIO

from botocore.exceptions import ClientError

from infra.stores import parts as our_parts
from infra.stores.base import ObjectInfo, too_large, unlike
from infra.stores.parts import OfParts
from infra.stores.patience import Patience
from infra.stores.s3_client import DamagedError, status

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_PIECE_BYTES = 256 << 10
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


def info_of(key: str, answer: Any) -> ObjectInfo:
    """What the server says of an object. Its digest is the one that the server checked, or computed, when it was written.

    Raises DamagedError for an answer that is not from an S3 server: an S3 server gives every object a tag.
    """
    if not answer.get("ETag"):
        raise DamagedError(f"'{key}' was answered by something that is not an S3 server")
    said = answer.get("ChecksumSHA256") or ""
    digest, _, parts = said.partition("-")
    try:
        sha256 = base64.b64decode(digest, validate=True).hex()
    except ValueError:
        sha256 = ""
    if len(sha256) != 64:
        return ObjectInfo(key, answer["ContentLength"])
    if not parts:
        return ObjectInfo(key, answer["ContentLength"], sha256=sha256)
    # Parts of another size than ours say nothing to us.
    ours = parts == str(math.ceil(answer["ContentLength"] / our_parts.PART_BYTES))
    return ObjectInfo(key, answer["ContentLength"], of_parts=(sha256, int(parts)) if ours else None)


class Whole:
    """One object on its way here. If it is cut off, it continues there; if it is damaged, it begins anew."""

    def __init__(self, bucket: str, name: str, key: str, max_bytes: int | None, sha256: str | None = None):
        """sha256: what it is held against; None: the server's digest."""
        self._bucket, self._name, self._key, self._max_bytes, self._known = bucket, name, key, max_bytes, sha256
        self._begin()

    def _begin(self) -> None:
        self._info: ObjectInfo | None = None
        self._body, self._etag = io.BytesIO(), ""
        self._sha256, self._of_parts = hashlib.sha256(), OfParts()

    def fetch(self, client: S3Client, timeout_s: float, patience: Patience) -> bytes:
        """All of it. Raises TooLargeError, before any byte is read, if it is too large; TrustError; DamagedError."""
        answer = self._asked(client)
        with closing(answer["Body"]):
            info = self._info or info_of(self._key, answer)
            if self._max_bytes is not None and info.size_bytes > self._max_bytes:
                raise too_large(self._key, info.size_bytes, self._max_bytes)
            if self._known is not None:
                info = ObjectInfo(self._key, info.size_bytes, sha256=self._known)
            self._info, self._etag = info, answer["ETag"]
            for piece in _pieces(answer, timeout_s, patience, self._key):
                self._body.write(piece)
                if info.sha256 is not None:
                    self._sha256.update(piece)
                elif info.of_parts is not None:
                    self._of_parts.update(piece)
        if ((info.sha256 is not None and self._sha256.hexdigest() != info.sha256)
                or (info.of_parts is not None and self._of_parts.ended() != info.of_parts)):
            self._begin()
            if self._known is not None:
                raise unlike(self._key)
            raise DamagedError(f"'{self._key}' came with another SHA-256 than the server has for it")
        return self._body.getvalue()

    def _asked(self, client: S3Client) -> Any:
        """The server's answer: the whole object, or the part that is missing."""
        if self._info is None:
            return client.get_object(Bucket=self._bucket, Key=self._name, ChecksumMode="ENABLED")
        have = self._body.tell()
        try:
            answer = client.get_object(Bucket=self._bucket, Key=self._name, Range=f"bytes={have}-", IfMatch=self._etag)
            _check_range(answer, have, self._info.size_bytes - have, self._key)
        except (ClientError, DamagedError) as error:
            self._begin()
            if isinstance(error, ClientError) and status(error) in {412, 416}:
                raise DamagedError(f"'{self._key}' is another object than when its reading began") from None
            raise
        return answer


def fetch_range(client: S3Client, timeout_s: float, patience: Patience, bucket: str, name: str, key: str, start: int,
                length: int) -> bytes:
    """A part of an object. A server has no checksum for it. Its length is checked here, its bytes by the caller."""
    try:
        answer: Any = client.get_object(Bucket=bucket, Key=name, Range=f"bytes={start}-{start + length - 1}")
    except ClientError as error:
        if status(error) == 416:                 # starts at the end of the object, or behind it
            return b""
        raise
    with closing(answer["Body"]):
        _check_range(answer, start, length, key)
        return b"".join(_pieces(answer, timeout_s, patience, key))


def _check_range(answer: Any, start: int, length: int, key: str) -> None:
    """Whether the answer holds what was asked for: all of it, or the rest of the object if it ends before."""
    found = _RANGE.fullmatch(answer.get("ContentRange", ""))
    if found is None:
        raise DamagedError(f"'{key}' came whole where a part was asked for, or with a part that is not named")
    first, last, size = map(int, found.groups())
    if (first, last) != (start, min(start + length, size) - 1) or answer["ContentLength"] != last - first + 1:
        raise DamagedError(f"'{key}' came in another part than was asked for")


def _pieces(answer: Any, timeout_s: float, patience: Patience, key: str) -> Iterator[bytes]:
    """What has arrived, as it arrives, so that a slow sender is noticed. Raises DamagedError for another length.

    It uses `read1` of the stream below botocore's: botocore's own `read` waits until all requested bytes are there.
    """
    body, left, what = answer["Body"], answer["ContentLength"], f"reading '{key}'"
    while left > 0:
        patience.check(what)
        if patience.left_s < timeout_s:
            body.set_socket_timeout(max(patience.left_s, 0.05))
        piece = body._raw_stream.read1(min(_PIECE_BYTES, left))
        if piece == b"":
            raise DamagedError(f"'{key}' ended {left} bytes too early")
        left -= len(piece)
        patience.moved()
        yield piece


class Outgoing(io.RawIOBase):
    """A body, or `size` bytes of it from `start` on, on its way to a server within a patience: a server that takes it slowly
    is noticed.
    """

    def __init__(self, source: BinaryIO, patience: Patience, key: str, start: int = 0, size: int | None = None):
        super().__init__()
        self._source, self._patience, self._what = source, patience, f"sending '{key}'"
        there = source.seek(0, io.SEEK_END)
        self._start, self._end = start, there if size is None else min(start + size, there)
        source.seek(start)

    def read(self, size: int = -1) -> bytes:
        """As a file does. Raises TooSlowError."""
        self._patience.check(self._what)
        self._patience.moved()
        left = max(0, self._end - self._source.tell())
        return self._source.read(left if size < 0 else min(size, left))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As a file does."""
        begins = {io.SEEK_SET: self._start, io.SEEK_CUR: self._source.tell(), io.SEEK_END: self._end}[whence]
        return self._source.seek(max(self._start, begins + offset)) - self._start

    def tell(self) -> int:
        """As a file does."""
        return self._source.tell() - self._start

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True
