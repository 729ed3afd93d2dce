"""Files that are there whole or not at all, what a power cut may take, and whether a file is still the one that was read."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedround import files
from tests.disk import is_durable, replace_alike, rewrite_alike, watched

ROOT = Path(__file__).parents[2]


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path):
    path = tmp_path / "it"
    for body in (b"first", b"", b"second" * 100_000):
        files.write_whole(path, body, durable=False)
        assert path.read_bytes() == body
        assert list(tmp_path.iterdir()) == [path]


def test_a_durable_file_is_synced_before_it_takes_its_name_and_its_folder_after(tmp_path: Path):
    path = tmp_path / "it"
    with watched() as happened:
        files.write_whole(path, b"body", durable=True)
    assert [what for what, _ in happened] == ["synced", "named", "synced"]
    assert is_durable(happened, path)


def test_nobody_waits_for_the_disk_for_a_file_that_can_be_made_again(tmp_path: Path):
    with watched() as happened:
        files.write_whole(tmp_path / "it", b"body", durable=False)
    assert happened == [("named", tmp_path / "it")]


@pytest.mark.parametrize("durable", [True, False])
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, durable: bool):
    path = tmp_path / "it"
    path.write_bytes(b"old")
    writing = files.writing_whole(path, durable=durable)
    writing.__enter__().write(b"half of")
    assert writing.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None) is False
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_cannot_sync_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "it"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_whole(path, b"new", durable=True)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_secret_was_never_readable_by_others_whatever_was_there_before(tmp_path: Path):
    path = tmp_path / "it"
    path.write_bytes(b"open to all")
    path.chmod(0o666)
    with files.writing_whole(path, durable=False, mode=0o600) as file:
        file.write(b"secret")
        assert {stat.S_IMODE(other.stat().st_mode) for other in tmp_path.iterdir() if other != path} == {0o600}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_of_many_writers_the_file_is_one_s_and_whole(tmp_path: Path):
    bodies = [bytes([number]) * 200_000 for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda body: files.write_whole(tmp_path / "it", body, durable=False), bodies))
    assert (tmp_path / "it").read_bytes() in bodies
    assert len(list(tmp_path.iterdir())) == 1


def test_of_many_who_create_a_file_one_does(tmp_path: Path):
    bodies = [bytes([number]) * 1000 for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda body: files.create_once(tmp_path / "it", body), bodies))
    assert [body for body, mine in zip(bodies, created, strict=True) if mine] == [(tmp_path / "it").read_bytes()]
    assert stat.S_IMODE((tmp_path / "it").stat().st_mode) == 0o600
    assert len(list(tmp_path.iterdir())) == 1


def test_every_new_folder_is_synced_in_the_one_that_holds_it(tmp_path: Path):
    with watched() as happened:
        files.make_folders(tmp_path / "a" / "b" / "c")
        files.make_folders(tmp_path / "a" / "b" / "c")
    assert happened == [("synced", tmp_path), ("synced", tmp_path / "a"), ("synced", tmp_path / "a" / "b")]


def test_what_takes_a_place_is_named_there_durably(tmp_path: Path):
    new, place = tmp_path / "new", tmp_path / "sub" / "place"
    (tmp_path / "sub").mkdir()
    new.write_bytes(b"it")
    with watched() as happened:
        files.take_place(new, place)
    assert happened == [("named", place), ("synced", tmp_path / "sub")]
    assert place.read_bytes() == b"it"


PACKAGES = ("fedround", "fedround_cli", "flows", "infra", "site_workers", "tasks", "validation")
ITS_OWN = {"fedround/files.py", "infra/model_registry.py", "infra/stack/server.py"}
"""The first makes such folders; the second syncs every folder itself; the third notes processes, and none runs after a power
cut."""
DURABLE = re.compile(r"durable=True|create_once\(|save_toml\(|write_private\(|identity\.save\(")


def test_whoever_writes_durably_makes_folders_and_renames_durably_too():
    """A file's name lasts only if the names of the folders above it do."""
    writers = {path.relative_to(ROOT).as_posix(): text for package in PACKAGES for path in (ROOT / package).rglob("*.py")
               if DURABLE.search(text := path.read_text())}
    assert len(writers) > 20
    assert [name for name, text in writers.items() if name not in ITS_OWN
            and re.search(r"\.(mkdir|rename|touch)\(|os\.(replace|rename|mkdir)\(", text)] == []


def test_a_file_in_a_folder_s_place_is_not_a_folder(tmp_path: Path):
    (tmp_path / "a").touch()
    with pytest.raises(NotADirectoryError):
        files.make_folders(tmp_path / "a" / "b")


@pytest.mark.parametrize("change", [replace_alike, rewrite_alike])
def test_another_file_that_looks_the_same_is_another_version(tmp_path: Path, change: Callable[[Path, bytes], None]):
    path, asked = tmp_path / "it", []

    @files.kept_while_unchanged
    def read(where: Path, what: str) -> bytes:
        asked.append(what)
        return where.read_bytes()

    path.write_bytes(b"one")
    before = files.version_of(path)
    assert [read(path, "a"), read(path, "a")] == [b"one", b"one"]
    assert asked == ["a"]
    change(path, b"two")
    assert files.version_of(path) != before
    assert [read(path, "a"), read(path, "a"), read(path, "b")] == [b"two", b"two", b"two"]
    assert asked == ["a", "a", "b"]


def test_no_file_is_a_version_too(tmp_path: Path):
    path = tmp_path / "it"
    assert files.version_of(path) == files.version_of(path / "below") == ()
    path.touch()
    assert files.version_of(path) != ()


def test_a_folder_is_removed_however_deep_and_no_link_of_it_is_followed(tmp_path):
    kept, folder, here = tmp_path / "kept", tmp_path / "folder", os.getcwd()
    kept.mkdir()
    (kept / "file").write_text("stays")
    kept.chmod(0o500)
    folder.mkdir()
    (folder / "to a folder").symlink_to(kept)
    (folder / "to a file").symlink_to(kept / "file")
    (folder / "to nothing").symlink_to("nothing")
    os.mkfifo(folder / "line")
    os.chdir(folder)
    try:
        for _ in range(1200):
            os.mkdir("d")
            os.chdir("d")
            os.symlink(kept, "link")
        os.chdir(folder)
        os.chmod("d/d", 0)
    finally:
        os.chdir(here)
    files.remove_whole(folder)
    assert not folder.exists()
    assert (kept / "file").read_text() == "stays"
    assert kept.stat().st_mode & 0o777 == 0o500
