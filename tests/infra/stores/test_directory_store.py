"""What only the store in a folder can get wrong. The common promises are in tests/conformance."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from fedround.errors import NotFoundError, StoreDeniedError, StoreError, StoreUnavailableError
from infra.stores import DirectoryStore

UNFINISHED = "+unfinished"


def test_opening_makes_nothing(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    assert list(store.list("")) == []
    assert store.head("a") is None
    assert not (tmp_path / "store").exists()


def test_objects_are_read_only_files_and_nothing_unfinished_stays(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put_once("a/b", b"1")
    store.put_once("a/b", b"2")
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) & 0o222 == 0
    assert list((tmp_path / UNFINISHED).iterdir()) == []
    assert (tmp_path / "a/b").stat().st_nlink == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    store = DirectoryStore(tmp_path)
    store.put_once("a/earlier", b"1")

    def full(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("infra.stores.directory.os.fsync", full)
    with pytest.raises(StoreUnavailableError, match="no space for 'a/b'"):
        store.put_once("a/b", b"2")
    monkeypatch.undo()
    assert list(store.list("")) == ["a/earlier"]
    assert list((tmp_path / UNFINISHED).iterdir()) == []
    assert store.put_once("a/b", b"2") is True


def test_an_object_and_a_folder_cannot_have_one_name(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put_once("a/b", b"1")
    for key in ("a", "a/b/c"):
        with pytest.raises(StoreError, match="the same name"):
            store.put_once(key, b"2")
        with pytest.raises(NotFoundError):
            store.get(key)
        assert store.head(key) is None
    assert list(store.list("")) == ["a/b"]


def test_every_name_is_synced_in_the_folder_that_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut after put_once must not lose the object, nor a folder on the way to it."""
    synced: list[str] = []
    fsync = os.fsync

    def watched(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).relative_to(tmp_path).as_posix())
        fsync(handle)

    monkeypatch.setattr("infra.stores.directory.os.fsync", watched)
    DirectoryStore(tmp_path / "store").put_once("a/b/c", b"1")
    assert {".", "store", "store/a", "store/a/b"} <= set(synced)
    assert synced[-1] == "store/a/b"                 # the pointer last
    assert any(name.startswith(f"store/{UNFINISHED}/") for name in synced)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_a_closed_folder_is_a_denial(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o500)
    with pytest.raises(StoreDeniedError, match="owner and permissions"):
        DirectoryStore(tmp_path).put_once("a/b", b"1")


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="file"):
        DirectoryStore(tmp_path / "file").put_once("a", b"1")
