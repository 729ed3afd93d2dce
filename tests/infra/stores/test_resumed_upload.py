"""A large upload that was cut goes on where it was: the parts that the server has are not sent again, and the bytes are the
same. The server is real; the line in front of it breaks.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from fedround.errors import StoreError, StoreUnavailableError
from fedround.files import sha256_of
from infra.stack import seaweedfs
from infra.stack.seaweedfs import SeaweedFS
from infra.stores import S3Store, parts, publish, s3_upload
from infra.stores import base as base_of_stores
from infra.stores import s3 as s3_store
from tests.faulty.proxy import UNDISTURBED, Disturbed, FaultyProxy, in_front_of

if TYPE_CHECKING:
    from tests.conftest import S3Server

pytestmark = pytest.mark.stack

PART = 5 << 20
"""No S3 server takes smaller ones, but for the last."""
_NUMBER = re.compile(r"partNumber=(\d+)")


@pytest.fixture(scope="module")
def running(s3_server: S3Server) -> Iterator[FaultyProxy]:
    with in_front_of(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The law does not depend on the size."""
    monkeypatch.setattr(parts, "PART_BYTES", PART)
    monkeypatch.setattr(s3_store, "LARGE_BYTES", PART)
    monkeypatch.setattr(s3_store, "_PAUSES_S", ())
    monkeypatch.setattr(base_of_stores, "_PAUSES_S", ())
    monkeypatch.setattr(s3_upload, "TRIES", 1)


@pytest.fixture
def proxy(running: FaultyProxy) -> FaultyProxy:
    running.seen, running.disturb = [], lambda *_: UNDISTURBED
    return running


@pytest.fixture
def store(proxy: FaultyProxy, s3_server: S3Server) -> S3Store:
    credential = s3_server.credential
    return S3Store(proxy.endpoint, "fedround", credential.access_key, credential.secret_key, prefix=f"{uuid4().hex}/")


def of_parts(path: Path, count: int) -> Path:
    """A body of so many parts, the last of which is short."""
    path.write_bytes(os.urandom((count - 1) * PART + 1000))
    return path


@pytest.fixture
def body(tmp_path: Path) -> Path:
    """Of three parts."""
    return of_parts(tmp_path / "delta", 3)


def cut_after(proxy: FaultyProxy, most: int) -> None:
    """The line carries so many parts, and half of the one that follows; then it is dead."""
    passed, lock = [0], threading.Lock()

    def disturb(method: str, path: str) -> Disturbed:
        with lock:
            if method == "PUT" and _NUMBER.search(path):
                passed[0] += 1
                return UNDISTURBED if passed[0] <= most else Disturbed(upload=0.5)
            return Disturbed(lost=True) if passed[0] > most or (method == "POST" and passed[0] == most > 0) else UNDISTURBED

    proxy.disturb = disturb


def sent(proxy: FaultyProxy) -> list[int]:
    """The numbers of the parts that were begun, in order."""
    return sorted(int(found[1]) for method, path in proxy.seen if method == "PUT" and (found := _NUMBER.search(path)))


def uploads(store: S3Store) -> list[str]:
    """What is under way below the store's prefix."""
    page = store._client().list_multipart_uploads(Bucket="fedround", Prefix=store._prefix)
    return [one["UploadId"] for one in page.get("Uploads", ())]


@pytest.mark.parametrize("tenths", [0, 3, 10])
def test_it_goes_on_where_it_was_cut(store: S3Store, proxy: FaultyProxy, tmp_path: Path, tenths: int) -> None:
    goes_on_where_it_was_cut(store, proxy, tmp_path, round(tenths * 4 / 10), 4)


@pytest.mark.parametrize("tenths", range(11))
def test_at_every_tenth_of_the_way_it_goes_on_where_it_was_cut(store: S3Store, proxy: FaultyProxy, tmp_path: Path,
                                                               tenths: int) -> None:
    goes_on_where_it_was_cut(store, proxy, tmp_path, tenths, 10)


def goes_on_where_it_was_cut(store: S3Store, proxy: FaultyProxy, folder: Path, most: int, count: int) -> None:
    """After the last part the answer to the last request is what is cut."""
    body, journal = of_parts(folder / "delta", count), folder / "journal"
    named = sha256_of(body)
    cut_after(proxy, most)
    with pytest.raises(StoreUnavailableError):
        publish(store, "sites/a/delta", body, sha256=named, journal=journal)
    proxy.seen, proxy.disturb = [], lambda *_: UNDISTURBED
    assert store.head("sites/a/delta") is None
    publish(store, "sites/a/delta", body, sha256=named, journal=journal)
    assert len(sent(proxy)) == count - most
    assert store.get("sites/a/delta") == body.read_bytes()
    assert not journal.exists()
    assert uploads(store) == []


_CHILD = """
import sys
from pathlib import Path
from infra.stores import S3Store, parts, publish
from infra.stores import s3
parts.PART_BYTES = s3.LARGE_BYTES = {part}
publish(S3Store({endpoint!r}, "fedround", *sys.argv[1:3], prefix={prefix!r}), "sites/a/delta", Path(sys.argv[3]),
        journal=Path(sys.argv[4]))
"""


def test_a_process_that_was_killed_has_a_successor_that_goes_on(store: S3Store, proxy: FaultyProxy, tmp_path: Path,
                                                                s3_server: S3Server) -> None:
    """It is killed when the server has at least two parts of it."""
    body = of_parts(tmp_path / "delta", 7)
    journal, credential, half, going_on = tmp_path / "journal", s3_server.credential, threading.Event(), threading.Event()

    def disturb(method: str, path: str) -> Disturbed:
        if len(sent(proxy)) > 5 and not going_on.is_set():          # of the four at once two have come back
            half.set()
            going_on.wait(600)
            return Disturbed(lost=True)
        return UNDISTURBED

    proxy.disturb = disturb
    child = subprocess.Popen([sys.executable, "-c", _CHILD.format(part=PART, endpoint=proxy.endpoint, prefix=store._prefix),
                              credential.access_key, credential.secret_key, str(body), str(journal)])
    assert half.wait(600)
    child.send_signal(signal.SIGKILL)
    child.wait(600)
    going_on.set()
    proxy.seen, proxy.disturb = [], lambda *_: UNDISTURBED
    with journal.open("a") as file:
        file.write('{"part": 3, "sha')               # it may have died while it wrote a line
    publish(store, "sites/a/delta", body, journal=journal)
    assert len(sent(proxy)) <= 5
    assert store.get("sites/a/delta") == body.read_bytes()
    assert uploads(store) == []


def test_another_body_of_the_same_length_gets_none_of_the_parts(store: S3Store, proxy: FaultyProxy, body: Path,
                                                                tmp_path: Path) -> None:
    """Else an object would be put together of two."""
    proxy.disturb = lambda method, path: Disturbed(lost=True) if "partNumber=3&" in path + "&" else UNDISTURBED
    with pytest.raises(StoreUnavailableError):
        store.put_once("models/a", body, journal=tmp_path / "journal")
    proxy.seen, proxy.disturb = [], lambda *_: UNDISTURBED
    changed = bytearray(body.read_bytes())
    changed[PART] ^= 1
    assert store.put_once("models/a", bytes(changed), journal=tmp_path / "journal")
    assert sent(proxy) == [2, 3]
    assert store.get("models/a") == changed


@pytest.mark.parametrize("wrong", ["another object's", "nonsense", "of a forgotten upload", "parts that nobody has"])
def test_a_journal_is_not_believed(store: S3Store, proxy: FaultyProxy, body: Path, tmp_path: Path, wrong: str,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_store, "_PAUSES_S", (0.0,))
    journal = tmp_path / "journal"
    cut_after(proxy, 2)
    with pytest.raises(StoreUnavailableError):
        store.put_once("models/a", body, journal=journal)
    proxy.seen, proxy.disturb = [], lambda *_: UNDISTURBED
    name, text = "models/a", journal.read_text()
    if wrong == "another object's":
        name = "models/b"
    elif wrong == "nonsense":
        journal.write_bytes(b"\xff\x00[1]\n7\n{}\n" + text.encode()[10:])
    elif wrong == "of a forgotten upload":
        [upload] = uploads(store)
        store._client().abort_multipart_upload(Bucket="fedround", Key=f"{store._prefix}models/a", UploadId=upload)
    else:
        digests = parts.cut(body.open("rb"))[1]
        journal.write_text(text.splitlines()[0] + "\n" + "".join(
            f'{{"part": {n}, "sha256": "{digest}", "tag": "\\"{"0" * 32}\\""}}\n' for n, digest in enumerate(digests, 1)))
    assert store.put_once(name, body, journal=journal)
    assert store.get(name) == body.read_bytes()
    assert not journal.exists()


def test_who_finds_the_object_there_drops_its_own_parts(store: S3Store, proxy: FaultyProxy, body: Path, tmp_path: Path,
                                                        s3_server: S3Server) -> None:
    """A condition holds for what is put together, too: the second of two writers changes nothing."""
    cut_after(proxy, 2)
    with pytest.raises(StoreUnavailableError):
        store.put_once("models/a", body, journal=tmp_path / "journal")
    proxy.disturb = lambda *_: UNDISTURBED
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3_store, "LARGE_BYTES", 1 << 30)
        assert s3_server.store(store._prefix).put_once("models/a", b"theirs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Store, "head", lambda *_: None)          # it came after we had looked
        assert store.put_once("models/a", body, journal=tmp_path / "journal") is False
    assert store.get("models/a") == b"theirs"
    assert uploads(store) == []
    assert not (tmp_path / "journal").exists()


def test_without_a_journal_a_failed_upload_leaves_no_parts(store: S3Store, proxy: FaultyProxy, body: Path) -> None:
    proxy.disturb = lambda method, path: Disturbed(lost=True) if "partNumber=3&" in path + "&" else UNDISTURBED
    with pytest.raises(StoreUnavailableError):
        store.put_once("models/a", body)
    assert uploads(store) == []


def test_a_body_that_changes_on_its_way_is_not_taken(store: S3Store, proxy: FaultyProxy, body: Path, tmp_path: Path) -> None:
    """It has been hashed, and then somebody writes to the file."""
    def disturb(method: str, path: str) -> Disturbed:
        if method == "POST" and "uploads" in path:
            with body.open("r+b") as file:
                file.seek(PART)
                file.write(b"another")
        return UNDISTURBED

    proxy.disturb = disturb
    with pytest.raises(StoreError, match="SHA-256"):
        store.put_once("models/a", body, sha256=sha256_of(body), journal=tmp_path / "journal")
    assert store.head("models/a") is None


def test_parts_that_nobody_wants_any_more_are_dropped(store: S3Store, proxy: FaultyProxy, body: Path, tmp_path: Path) -> None:
    cut_after(proxy, 2)
    with pytest.raises(StoreUnavailableError):
        store.put_once("models/a", body, journal=tmp_path / "journal")
    proxy.disturb = lambda *_: UNDISTURBED
    now = datetime.now(UTC)
    assert store.drop_unfinished(now - timedelta(days=8)) == 0
    assert len(uploads(store)) == 1
    assert store.drop_unfinished(now + timedelta(minutes=1)) == 1
    assert uploads(store) == []


def test_a_server_that_starts_drops_them(s3_server: S3Server, short_folder: Path, store: S3Store, proxy: FaultyProxy,
                                         body: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_after(proxy, 2)
    with pytest.raises(StoreUnavailableError):
        store.put_once("models/a", body, journal=tmp_path / "journal")
    proxy.disturb = lambda *_: UNDISTURBED
    server, port = SeaweedFS(short_folder / "s3-only"), int(s3_server.endpoint.rpartition(":")[2])
    server.wait_ready(port)
    assert len(uploads(store)) == 1
    monkeypatch.setattr(seaweedfs, "_UNFINISHED", timedelta(minutes=-1))
    server.wait_ready(port)
    assert uploads(store) == []
