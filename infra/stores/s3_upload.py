"""Large bodies go in parts. What the server has is written down, so that an upload that was cut goes on where it was."""

from __future__ import annotations

import base64
import io
import json
import logging
import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from botocore.exceptions import ClientError

from infra.stores import parts
from infra.stores.base import other_bytes
from infra.stores.patience import Patience
from infra.stores.s3_body import Outgoing
from infra.stores.s3_client import DamagedError, are_other_bytes

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

TRIES = 4
"""How often botocore tries to send one part."""

_AT_ONCE = 4
_IS_GONE = {"NoSuchUpload", "InvalidPart", "InvalidPartOrder"}

log = logging.getLogger("fedround.store")


@dataclass
class Journal:
    """Which upload is under way, and which parts the server has: a line each, on this machine's disk, for whoever goes on.

    Nothing here is believed: a part counts as arrived if its digest is that of the same part of the body, and the server puts
    an object together only of parts with these digests. A line that is lost or damaged costs a part that is sent again.
    path: None keeps it in memory.
    """

    path: Path | None
    target: str
    """Which object of which server. What was written down for another one does not count."""
    upload: str = ""
    """The server's name for the upload; '' if none is under way."""
    arrived: dict[int, tuple[str, str]] = field(default_factory=dict)
    """By number: the digest of the part, and the server's tag for it."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        for line in self._lines():
            with suppress(ValueError, TypeError, KeyError):
                said = json.loads(line)
                if "upload" in said:
                    self.upload, self.arrived = (str(said["upload"]) if said["of"] == self.target else ""), {}
                else:
                    self.arrived[int(said["part"])] = str(said["sha256"]), str(said["tag"])

    def begin(self, upload: str) -> None:
        """An upload is under way, and has no parts yet."""
        self.upload, self.arrived = upload, {}
        self._write({"of": self.target, "upload": upload}, "w")

    def has(self, part: int, sha256: str, tag: str) -> None:
        """The server has this part."""
        with self._lock:
            self.arrived[part] = sha256, tag
            self._write({"part": part, "sha256": sha256, "tag": tag}, "a")

    def forget(self) -> None:
        """No upload is under way."""
        self.upload, self.arrived = "", {}
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _lines(self) -> list[str]:
        if self.path is not None:
            with suppress(OSError):
                return self.path.read_text("utf-8", "replace").splitlines()
        return []

    def _write(self, said: dict[str, Any], how: str) -> None:
        if self.path is not None:
            with suppress(OSError), self.path.open(how, encoding="utf-8") as file:     # a full disk stops no upload
                file.write(json.dumps(said) + "\n")


@dataclass
class Upload:
    """One body on its way to one object."""

    bucket: str
    name: str
    key: str
    body: bytes | Path
    journal: Journal
    whole: str = ""
    sha256: tuple[str, ...] = ()
    """Of each part."""

    def hashed(self, source: BinaryIO) -> str:
        """The digest of the body, which is read once for it and for those of its parts."""
        if not self.whole:
            self.whole, self.sha256 = parts.cut(source)
        return self.whole

    def send(self, client: S3Client, patience: Patience) -> None:
        """Send the parts that the server lacks, four at a time, and put all together under the name if nothing lies there.

        Raises what the client raises; DamagedError for a part that arrived with other bytes, and for an upload that the
        server has forgotten: it begins anew at the next call. Otherwise what has arrived stays.
        """
        try:
            self._send(client, patience)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") not in _IS_GONE:
                raise
            self.journal.forget()
            raise DamagedError(f"the server has forgotten the upload of '{self.key}' that was under way") from None

    def give_up(self, client: S3Client) -> None:
        """Have the server drop the parts, if it can be reached."""
        if self.journal.upload:
            with suppress(Exception):       # whoever gives up has another error to tell; the bucket's rule removes the parts
                client.abort_multipart_upload(Bucket=self.bucket, Key=self.name, UploadId=self.journal.upload)
        self.journal.forget()

    def _send(self, client: S3Client, patience: Patience) -> None:
        journal = self.journal
        if not journal.upload:
            journal.begin(client.create_multipart_upload(Bucket=self.bucket, Key=self.name,
                                                         ChecksumAlgorithm="SHA256")["UploadId"])
        lacks = [part for part, sha256 in enumerate(self.sha256, 1) if journal.arrived.get(part, ("",))[0] != sha256]
        if len(lacks) < len(self.sha256):
            log.info("'%s' goes on: the server has %d of its %d parts", self.key, len(self.sha256) - len(lacks),
                     len(self.sha256))
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            under_way = [threads.submit(self._send_part, client, patience, part) for part in lacks]
            done, _ = wait(under_way, return_when=FIRST_EXCEPTION)
            threads.shutdown(wait=True, cancel_futures=True)
            for future in done:
                future.result()
        client.complete_multipart_upload(
            Bucket=self.bucket, Key=self.name, UploadId=journal.upload, IfNoneMatch="*", MultipartUpload={"Parts": [
                {"PartNumber": part, "ETag": journal.arrived[part][1], "ChecksumSHA256": _coded(sha256)}
                for part, sha256 in enumerate(self.sha256, 1)]})
        journal.forget()

    def _send_part(self, client: S3Client, patience: Patience, part: int) -> None:
        start, sha256 = (part - 1) * parts.PART_BYTES, self.sha256[part - 1]
        with self.body.open("rb") if isinstance(self.body, Path) else io.BytesIO(self.body) as source:
            outgoing = Outgoing(cast(BinaryIO, source), patience, self.key, start, parts.PART_BYTES)
            try:
                answer = client.upload_part(Bucket=self.bucket, Key=self.name, UploadId=self.journal.upload, PartNumber=part,
                                            Body=cast(IO[bytes], outgoing), ChecksumSHA256=_coded(sha256))
            except ClientError as error:
                if not are_other_bytes(error):
                    raise
                raise DamagedError(f"'{self.key}' did not arrive as it was sent", other_bytes(self.key)) from None
        self.journal.has(part, sha256, answer["ETag"])


def drop_older(client: S3Client, bucket: str, prefix: str, than: datetime) -> int:
    """Drop the parts of every upload below `prefix` that began before then, and was never ended; returns how many uploads."""
    dropped, more = 0, dict[str, str]()
    while True:
        page = client.list_multipart_uploads(Bucket=bucket, Prefix=prefix, **more)      # type: ignore[arg-type]
        for one in page.get("Uploads", ()):
            if one["Initiated"] < than:
                client.abort_multipart_upload(Bucket=bucket, Key=one["Key"], UploadId=one["UploadId"])
                dropped += 1
        if not page.get("IsTruncated"):
            return dropped
        more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def _coded(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()
