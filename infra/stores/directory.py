"""A store in a folder: one file per object, on a file system that all members can reach."""

from __future__ import annotations

import errno
import io
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fedround.errors import NotFoundError, StoreDeniedError, StoreError, StoreUnavailableError
from fedround.files import make_folders, sha256_of, sync_folder
from infra.stores.base import ObjectInfo, held, other_bytes, too_large
from infra.stores.keys import check_key, check_prefix, check_range
from infra.stores.patience import Patience

# '+' cannot stand in a key, so no object can be hidden by this folder or lie in it.
_UNFINISHED = "+unfinished"


class DirectoryStore:
    """An ObjectStore in a folder, for trying things out and for shared file systems with hard links.

    An object is written to a temporary file, synced, and then linked under its name. A link never replaces, so exactly one of
    many writers wins. A writer that is killed leaves nothing that a reader can see: its temporary file stays in '+unfinished'
    and may be deleted when nobody writes. Object files are read-only.
    Not promised: that members are kept apart. Whoever may write to the folder may delete from it. An object 'a' and an object
    'a/b' cannot both exist (StoreError): a folder is not a file.
    """

    def __init__(self, root: Path):
        self._root = Path(root)

    def __repr__(self) -> str:
        return f"DirectoryStore({str(self._root)!r})"

    def get(self, key: str, *, max_bytes: int | None = None, sha256: str | None = None) -> bytes:
        """See ObjectStore."""
        with self._open(key) as file:
            size = os.fstat(file.fileno()).st_size
            if max_bytes is not None and size > max_bytes:
                raise too_large(key, size, max_bytes)
            return held(file.read(), sha256, key)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See ObjectStore."""
        check_range(key, start, length)
        with self._open(key) as file:
            file.seek(start)
            return file.read(length)

    def put_once(self, key: str, body: bytes | Path, *, sha256: str | None = None, journal: Path | None = None) -> bool:
        """See ObjectStore."""
        check_key(key)
        target = self._root / key
        with body.open("rb") if isinstance(body, Path) else io.BytesIO(body) as source, self._surprises(key):
            if target.is_file():
                sync_folder(target.parent)       # the one who linked it may have died before this line
                return False
            temporary = self._write_unfinished(source)
            try:
                if sha256 is not None and sha256_of(temporary) != sha256:
                    raise other_bytes(key)
                make_folders(target.parent)
                os.link(temporary, target)
            except FileExistsError:
                if target.is_dir():
                    raise
                return False
            finally:
                temporary.unlink()
                if target.parent.is_dir():
                    sync_folder(target.parent)
            return True

    def head(self, key: str) -> ObjectInfo | None:
        """See ObjectStore."""
        try:
            with self._open(key) as file:
                return ObjectInfo(key, os.fstat(file.fileno()).st_size)
        except NotFoundError:
            return None

    def list(self, prefix: str) -> Iterator[str]:
        """See ObjectStore."""
        check_prefix(prefix)
        top = self._root / prefix.rpartition("/")[0]
        keys = []
        with self._surprises(prefix):
            for folder, folders, files in os.walk(top, onerror=_unless_missing):
                if Path(folder) == self._root and _UNFINISHED in folders:
                    folders.remove(_UNFINISHED)
                keys += [(Path(folder) / name).relative_to(self._root).as_posix() for name in files]
        return iter(sorted(key for key in keys if key.startswith(prefix)))

    def within(self, patience: Patience) -> DirectoryStore:
        """See ObjectStore."""
        return self

    @contextmanager
    def _open(self, key: str) -> Iterator[BinaryIO]:
        check_key(key)
        with self._surprises(key):
            try:
                with open(self._root / key, "rb") as file:
                    yield file
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise NotFoundError(f"no object '{key}' in {self._root}") from None

    def _write_unfinished(self, source: BinaryIO) -> Path:
        """A complete, synced copy of `source` under a name that no key can have, in the same file system."""
        folder = self._root / _UNFINISHED
        make_folders(folder)
        path = folder / secrets.token_hex(16)
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444), "wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    @contextmanager
    def _surprises(self, key: str) -> Iterator[None]:
        """The operating system's errors as ours."""
        try:
            yield
        except (FileExistsError, NotADirectoryError):
            raise StoreError(f"'{key}' in {self._root}: an object and a folder would have the same name") from None
        except PermissionError:
            raise StoreDeniedError(f"this user may not use '{key}' in {self._root}: check the folder's owner and "
                                   "permissions") from None
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise StoreUnavailableError(f"no space for '{key}' in {self._root}: free some and try again") from None
            raise StoreUnavailableError(f"'{key}' in {self._root}: {error.strerror}; check that the folder is there "
                                        "and its file system is mounted") from None


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
