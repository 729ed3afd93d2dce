"""Large bodies go in parts, by boto3's transfer manager: only what a lost connection cut off is sent again."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boto3.s3.transfer import TransferConfig, create_transfer_manager
from s3transfer.subscribers import BaseSubscriber

from infra.stores.parts import PART_BYTES
from infra.stores.patience import Patience

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

TRIES = 4
"""How often botocore tries to send one part."""

_AT_ONCE = 4
_CONFIG = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=_AT_ONCE,
                         preferred_transfer_client="classic")


class _Watch(BaseSubscriber):
    """Ends an upload when the patience is over. It is called for every block that is read for sending."""

    def __init__(self, patience: Patience, key: str):
        self._patience, self._what = patience, f"sending '{key}'"

    def on_progress(self, future: Any, bytes_transferred: int, **_: Any) -> None:
        """Raises TooSlowError."""
        self._patience.check(self._what)


def upload(client: S3Client, bucket: str, name: str, key: str, body: bytes | Path, patience: Patience) -> None:
    """Send all parts, each with its SHA-256, and put them together under the name if nothing lies there.

    `Clients` sets that condition. Raises what the client raises. The parts of a failed upload are removed, unless this
    process dies first.
    """
    source = io.BytesIO(body) if isinstance(body, bytes) else str(body)
    with create_transfer_manager(client, _CONFIG) as manager:
        manager.upload(source, bucket, name, extra_args={"ChecksumAlgorithm": "SHA256"},
                       subscribers=[_Watch(patience, key)]).result()
