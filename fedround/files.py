"""Files that exist whole or not at all, folders whose names are durable, and a check whether a file has changed since it was
read.

One promise always holds: at any time, and whatever process is killed, a reader finds the old file or the new one, never a
part of one. `durable` decides what a power cut may do:

* durable: when the call returns, the new file is on the disk, its name too. A power cut before that leaves the old file or
  the new one, whole.
* not durable: a power cut may bring the old file back, or leave an empty or a torn one. Use this only for files that can be
  made again and whose reader notices damage, or that only people read.

Not promised: that a folder which the caller made itself lasts (`make_folders` makes one that does), anything about a disk
that reports "written" before it has written, or that two writers of one file agree: the last one wins. A writer that is
killed leaves its temporary file, `.<name>.<chance>`, beside the place; nobody reads it, and it may be removed when nobody
writes.
"""

from __future__ import annotations

import codecs
import errno
import functools
import hashlib
import io
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar, TypeVarTuple

from fedround.errors import ContractError

A = TypeVarTuple("A")
T = TypeVar("T")

Version = tuple[int, ...]
"""Which version of a file is there; empty where there is none."""


def write_whole(path: Path, body: bytes, *, durable: bool, mode: int = 0o600) -> None:
    """Put `body` at `path`, in place of what is there. The folder must be there.

    mode: the new file's, whatever the old one's was; less the umask. Without one, nobody else may read it.
    """
    with writing_whole(path, durable=durable, mode=mode) as file:
        file.write(body)


@contextmanager
def writing_whole(path: Path, *, durable: bool, mode: int = 0o600) -> Iterator[BinaryIO]:
    """The same for a file that is written block by block: it takes its place when the block ends, and never if it raises."""
    temporary = _beside(path)
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            yield file
            if durable:
                _sync(file)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def create_once(path: Path, body: bytes) -> bool:
    """Create `path` with `body`, durably, mode 0600. True: this call created it. False: something was there already.

    Of many concurrent calls exactly one returns True.
    """
    temporary = _beside(path)
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(body)
            _sync(file)
        os.link(temporary, path)            # unlike replace, a link never overwrites
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def take_place(new: Path, place: Path) -> None:
    """Rename `new`, whose content is on the disk already, to `place`, durably. It may be a file or a folder; a file that is
    there is replaced.
    """
    new.replace(place)
    sync_folder(place.parent)


def make_folders(folder: Path, mode: int = 0o777) -> None:
    """Make `folder` and its parents, durably: a new name must be synced in the folder that holds it.

    mode: of those that are made, less the umask. Raises NotADirectoryError if something else has one of the names.
    """
    if folder.is_dir():
        return
    make_folders(folder.parent, mode)
    with suppress(FileExistsError):
        folder.mkdir(mode)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(folder))
    sync_folder(folder.parent)


@contextmanager
def others_folder(prefix: str) -> Iterator[Path]:
    """A folder in which a program of others works: in the end all of it is removed (`remove_whole`), when that has ended."""
    made = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield made
    finally:
        remove_whole(made)


def remove_whole(folder: Path) -> None:
    """Remove a folder with all below it, also where somebody does not want it: no path is too deep, no folder is closed, no
    link is followed. Raises OSError if that cannot be, as where files are made there meanwhile.
    """
    token, number = secrets.token_hex(8), 0
    while entries := _listed(folder):
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            for below in _listed(entry.path):
                if below.is_dir(follow_symlinks=False):         # becomes a neighbour, so that no path gets longer
                    os.chmod(below.path, 0o700)
                    os.rename(below.path, folder / f"{token}-{number}")
                    number += 1
                else:
                    os.unlink(below.path)
            os.rmdir(entry.path)
    os.rmdir(folder)


def _listed(folder: Path | str) -> list[os.DirEntry[str]]:
    os.chmod(folder, 0o700)
    with os.scandir(folder) as found:
        return list(found)


def keep_private(folder: Path) -> None:
    """Close `folder` and all that is in it to other users, whatever the umask was when it was made."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() else 0o600)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make what somebody else has written to `path` durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_named(path: Path) -> bytes:
    """The bytes of a file that a person has named. Never waits, and never reads what has no end.

    Raises OSError also for what is no plain file: a folder, a pipe, a device, a socket.
    """
    with plain(path) as file:
        return file.read()


@contextmanager
def plain(path: Path) -> Iterator[io.BufferedReader]:
    """The same file, open."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(number).st_mode
    if not stat.S_ISREG(mode):
        os.close(number)
        raise OSError(errno.EINVAL, "it is a folder" if stat.S_ISDIR(mode) else "it is a pipe or a device, and no file",
                      str(path))
    with open(number, "rb") as file:
        yield file


def sha256_of(path: Path) -> str:
    """The digest of a file, read in blocks. Raises OSError as `read_named`."""
    with plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_utf8(body: bytes, source: str) -> None:
    """Raise ContractError unless a file that is named by its digest is UTF-8 text without a mark that no screen shows.

    source: which file it is, for the message.
    """
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ContractError(f"{source}: it is UTF-16 text; save it as UTF-8, without a byte order mark")
    if body.startswith(codecs.BOM_UTF8):
        raise ContractError(f"{source}: it begins with a byte order mark, which no screen shows; save it as UTF-8 without it")
    try:
        body.decode()
    except UnicodeDecodeError:
        raise ContractError(f"{source}: not UTF-8 text; save it as UTF-8") from None


def version_of(path: Path) -> Version:
    """Identifies the version of a file. It differs if the file was replaced, written to or touched, even if length and
    modification time were set back. It includes the inode's change time, which nobody can set.

    Not promised: that two changes within one tick of the system's clock (a few milliseconds) are told apart.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def kept_while_unchanged(read: Callable[[Path, *A], T]) -> Callable[[Path, *A], T]:
    """Wrap a function that reads a file: its last result holds while the file and the other arguments are the same."""
    last: tuple[object, T] | None = None

    @functools.wraps(read)
    def current(path: Path, *others: *A) -> T:
        nonlocal last
        asked = path, version_of(path), others      # the version first: what changes meanwhile is read again next time
        found = last
        if found is None or found[0] != asked:
            found = last = asked, read(path, *others)
        return found[1]

    return current


def _beside(path: Path) -> Path:
    """A random name in the same folder: so it is in the same file system, and neither threads nor machines use the same
    name.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
