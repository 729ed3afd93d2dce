"""boto3's client as our store uses it, and its errors in our words.

It is imported when a store in S3 is first used: a member whose store is a folder never pays for it (3 MB over botocore, 35 MB
in all).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from boto3.session import Session as BotoSession
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as ConnectError
from botocore.loaders import Loader, create_loader
from botocore.parsers import ResponseParserError
from botocore.session import Session
from urllib3.exceptions import HTTPError

from fedround.errors import NotFoundError, StoreDeniedError, StoreError, StoreUnavailableError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

CONNECT_TIMEOUT_S = 20.0       # also the longest pause while a body is sent: a busy server may need it
TIMEOUTS_S = (60.0, 15.0, 4.0, 1.0)
"""How long a client waits for the next byte. One client is opened for each value in use: nearly always only the first."""

_UNKNOWN_CREDENTIAL = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_CLOCK = {"RequestTimeTooSkewed", "RequestExpired"}
_MOST_SKEW_S = 14 * 60         # servers turn away what is 15 minutes off; an answer to HEAD does not say why
_OTHER_BYTES = {"BadDigest", "XAmzContentChecksumMismatch", "InvalidDigest"}
_NO_SPACE = {"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "507"}
_PASSES = {"RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable", "Throttling", "ThrottlingException"}


class DamagedError(Exception):
    """The bytes that came are not those that were sent. Another try may bring them.

    in_the_end: what to raise if none does.
    """

    def __init__(self, message: str, in_the_end: StoreError | None = None):
        super().__init__(message)
        self.in_the_end = in_the_end


PASSING = (ConnectError, HTTPClientError, HTTPError, HTTPException, ResponseParserError, DamagedError, ConnectionResetError)
"""Errors that may not occur again at the next try, besides the answers that `passes` knows."""


class Clients:
    """The clients of one credential. Every process has its own: connections must not be shared with a process that forked."""

    def __init__(self, endpoint: str, access_key: str, secret_key: str, region: str):
        self._endpoint, self._access_key, self._secret_key, self._region = endpoint, access_key, secret_key, region
        self._pid, self._clients = 0, dict[tuple[float, int], "S3Client"]()

    def patient(self, left_s: float, tries: int = 1) -> tuple[S3Client, float]:
        """A client that waits for no byte longer than `left_s` seconds (or than one second, if less is left), and that time.

        tries: of every request. The caller tries again within a patience, which botocore does not know.
        """
        if self._pid != os.getpid():
            self._pid, self._clients = os.getpid(), {}
        timeout_s = next((each for each in TIMEOUTS_S if each <= left_s), TIMEOUTS_S[-1])
        if (timeout_s, tries) not in self._clients:
            self._clients[timeout_s, tries] = self._open(timeout_s, tries)
        return self._clients[timeout_s, tries], timeout_s

    def _open(self, timeout_s: float, tries: int) -> S3Client:
        # The signature covers the checksum's header, and with it the body: botocore would hash that once more.
        # A name of our own: botocore's is put together again for every request, a tenth of what one costs here.
        # Keys are checked before they come here, and types by mypy: botocore's check of both is a seventh of a request.
        config = Config(signature_version="s3v4", user_agent="fedround", parameter_validation=False,
                        s3={"addressing_style": "path", "payload_signing_enabled": False},
                        connect_timeout=min(CONNECT_TIMEOUT_S, timeout_s), read_timeout=timeout_s,
                        retries={"total_max_attempts": tries, "mode": "standard"},
                        request_checksum_calculation="when_required", response_checksum_validation="when_required")
        client = _session().client("s3", region_name=self._region, endpoint_url=self._endpoint, config=config,
                                   aws_access_key_id=self._access_key, aws_secret_access_key=self._secret_key)
        client.meta.events.register("provide-client-params.s3.CompleteMultipartUpload", _if_nothing_is_there)
        return client


def _if_nothing_is_there(params: dict[str, Any], **_: Any) -> Any:
    """The transfer manager knows no condition; with this one an object in parts is written once, too."""
    return {**params, "IfNoneMatch": "*"}


def status(error: ClientError) -> int:
    """The status of the HTTP answer."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def passes(error: ClientError) -> bool:
    """Whether the answer is of a server that may work again soon."""
    return error.response.get("Error", {}).get("Code") in _PASSES or status(error) in {429, 500, 502, 503, 504}


def are_other_bytes(error: ClientError) -> bool:
    """Whether the server says that the bytes that came are not those that the request names."""
    return error.response.get("Error", {}).get("Code") in _OTHER_BYTES


@contextmanager
def in_our_words(endpoint: str, bucket: str, key: str) -> Iterator[None]:
    """The client's errors as ours."""
    try:
        yield
    except ClientError as error:
        raise _of_answer(f"bucket '{bucket}' at {endpoint}", key, error) from None
    except DamagedError as error:
        raise error.in_the_end or StoreUnavailableError(
            f"{error}, again and again: something between this machine and the object store at {endpoint} alters or cuts "
            "what passes. Look at the network, then try again") from None
    except (ConnectError, HTTPClientError, HTTPError, HTTPException, ConnectionResetError) as error:
        raise StoreUnavailableError(f"the object store at {endpoint} does not answer ({type(error).__name__}, '{key}'): "
                                    "check the address, the network and that the server runs") from None
    except (BotoCoreError, ResponseParserError, ValueError) as error:
        raise StoreUnavailableError(f"the object store at {endpoint} could not be used for '{key}' "
                                    f"({type(error).__name__}): check the endpoint and the bucket's name") from None


def _of_answer(where: str, key: str, error: ClientError) -> StoreError:
    code, answered = str(error.response.get("Error", {}).get("Code", "")), status(error)
    if answered in {401, 403}:
        return _of_refusal(where, key, code, _skew_s(error.response))
    if code == "NoSuchBucket":
        return StoreUnavailableError(f"there is no {where}: create it, or check its name")
    if code in _NO_SPACE:
        return StoreUnavailableError(f"no space for '{key}' in {where}: ask its operator for more, then try again")
    if answered == 404:
        return NotFoundError(f"no object '{key}' in {where}")
    return StoreUnavailableError(f"{where} could not serve '{key}' ({code or answered}): try again, or ask its operator")


def _of_refusal(where: str, key: str, code: str, skew_s: float) -> StoreError:
    """The error for a wrong clock, an unknown credential, or one that lacks the right."""
    if code in _CLOCK or abs(skew_s) > _MOST_SKEW_S:
        return StoreUnavailableError(f"{where} turned '{key}' away because this machine's clock and its own differ"
                                     f"{f' by {abs(skew_s) / 60:.0f} minutes' if abs(skew_s) >= 60 else ''}: set the clocks "
                                     "(with a time service), then try again. The credential is not the reason")
    if code in _UNKNOWN_CREDENTIAL:
        return StoreUnavailableError(f"{where} does not accept this credential ({code}): check the access key and the secret "
                                     "key, or ask the coordinator for new ones")
    return StoreDeniedError(f"this credential may not use '{key}' in {where}: a site may write below 'sites/<its name>/' "
                            "only")


def _skew_s(response: Any) -> float:
    """How much the server's clock is ahead of ours; 0 if the answer does not say."""
    try:
        theirs = parsedate_to_datetime(response["ResponseMetadata"]["HTTPHeaders"]["date"])
        return (theirs - datetime.now(UTC)).total_seconds()
    except (KeyError, ValueError, TypeError):
        return 0.0


def _session() -> BotoSession:
    """A session that shares the description of S3 with all others: reading it takes a fifth of a second and 15 MB."""
    session = Session()
    session.register_component("data_loader", _loader())
    return BotoSession(botocore_session=session)


@cache
def _loader() -> Loader:
    return create_loader()
