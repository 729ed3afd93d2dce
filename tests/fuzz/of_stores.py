"""What an object store gives back: keys, lists, bodies, errors; each may be false, late, damaged or somebody else's."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any
from unittest import mock

from fedround import layout
from fedround.errors import ContractError, StoreDeniedError, StoreError
from fedround.federation import Federation
from fedround.federation_log import Rotation
from fedround.signing import digest, seal, unseal
from fedround.values import parse
from infra import federation_log, history
from infra.stores import MemoryStore, Patience, base, judged, publish
from infra.stores.keys import check_key
from infra.toml import parse_toml
from tests.fuzz.parser import FEDERATION, KEY, ROTATION, Parser

_KEYS = {layout.parse_log_entry: layout.log_entry, layout.parse_rotation: layout.rotation, layout.parse_plan: layout.plan,
         layout.parse_commit: layout.commit, layout.parse_finding: layout.finding, layout.parse_answer: layout.answer,
         layout.parse_refusal: layout.refusal}
_AGREED = parse(Federation, parse_toml(FEDERATION.decode(), "it"), "it")
_BODY = bytes(range(256)) * 3
_LIST = "\n".join((layout.log_entry(1), layout.commit("spring", 0), layout.plan("spring", 1, 1, "train"),
                   layout.commit("spring", 1), layout.finding("spring", 1, 1, "measure"),
                   layout.answer("lund", "spring", 1, 1, "train"))).encode()
_ERROR = b"<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>"


def _key(data: bytes) -> None:
    """A key says what it was built from, or nothing; and what says something is a key."""
    key = data.decode("utf-8", "surrogateescape")
    for parses, builds in _KEYS.items():
        if (said := parses(key)) is not None:
            if builds(*(said if isinstance(said, tuple) else (said,))) != key:
                raise AssertionError("a key that nobody builds")
            return check_key(key)
    raise ContractError("no key of ours")


class _Lists(MemoryStore):
    """Holds what its lists may hide, and lists what it may not hold."""

    def __init__(self, names: list[str]):
        super().__init__()
        self._names, self.looks = names, 0

    def list(self, prefix: str) -> Iterator[str]:
        self.looks += 1
        return iter(name for name in self._names if name.startswith(prefix))


@cache
def _begun() -> dict[str, bytes]:
    store = MemoryStore()
    federation_log.extend(store, KEY, _AGREED, seal(_AGREED, KEY))
    return store._objects


def _listed(data: bytes) -> None:
    """Whatever a list says: the log goes on where it ended, and nobody asks for the list without end."""
    store = _Lists(data.decode("utf-8", "surrogateescape").split("\n"))
    store._objects.update(_begun())
    edited = _AGREED.model_copy(update={"deadline_s": 61})
    found = federation_log.extend(store, KEY, edited, seal(edited, KEY)).head
    if (found.number, store.looks) != (2, 1):
        raise AssertionError(f"entry {found.number} after {store.looks} lists")
    history.last_round(store, "spring", KEY.key)
    list(itertools.chain(*(history.findings(store, "spring", purpose) for purpose in ("evaluate", "measure"))))


class _Server:
    """Answers with these bytes, and says of them what it should have sent."""

    def __init__(self, data: bytes):
        self._data = data

    def get_object(self, **_: object) -> dict[str, Any]:
        stream = mock.Mock()
        stream._raw_stream = io.BytesIO(self._data)
        checksum = base64.b64encode(bytes.fromhex(digest(_BODY))).decode()
        return {"Body": stream, "ContentLength": len(_BODY), "ETag": '"1"', "ChecksumSHA256": checksum}


def _body(data: bytes) -> None:
    """A body is what the server has, or refused."""
    from infra.stores.s3_body import Whole
    from infra.stores.s3_client import in_our_words

    with in_our_words("it", "it", "it"):
        if Whole("it", "it", "it", None).fetch(_Server(data), 1.0, Patience(60.0)) != _BODY:   # type: ignore[arg-type]
            raise AssertionError("another body")


def _no(data: bytes) -> str:
    """What a server says instead of an answer is put into our words; a clock is never taken for a credential."""
    from botocore.exceptions import ClientError
    from botocore.parsers import create_parser

    from infra.stores.s3_client import in_our_words

    said: dict[str, Any] = {}
    try:
        with in_our_words("it", "it", "it"):
            said = create_parser("rest-xml").parse({"status_code": 403, "headers": {}, "body": data}, None)
            raise ClientError(said, "GetObject")  # type: ignore[arg-type]
    except StoreError as error:
        if isinstance(error, StoreDeniedError) and said["Error"].get("Code") == "RequestTimeTooSkewed":
            raise AssertionError("a clock was taken for a credential") from None
        return str(error)


def _again(data: bytes) -> None:
    """One bad reading is none: what is there is read."""
    came = itertools.chain((data,), itertools.repeat(ROTATION))
    if seal(judged(lambda: next(came), lambda body: unseal(body, Rotation, KEY.key, "it"), "it"), KEY) != ROTATION:
        raise AssertionError("another document")


class _Keeps(MemoryStore):
    """Says that it has taken what it is given, and keeps something else; b"": nothing."""

    def __init__(self, kept: bytes):
        super().__init__()
        self._kept = kept

    def put_once(self, key: str, *_: object, **__: object) -> bool:
        return self._kept == b"" or super().put_once(key, self._kept)


def _taken(data: bytes) -> None:
    with mock.patch.object(base, "_PAUSES_S", (0.0, 0.0)):
        publish(_Keeps(data), "a/b", _BODY, sha256=digest(_BODY))


STORES: Mapping[str, Parser] = {
    "place": Parser(_key, layout.answer("lund", "spring", 1, 1, "train").encode()),
    "list": Parser(_listed, _LIST),
    "body": Parser(_body, _BODY),
    "no": Parser(_no, _ERROR),
    "read again": Parser(_again, ROTATION),
    "taken": Parser(_taken, _BODY),
}
