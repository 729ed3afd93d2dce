"""Which files a path of rows names, and their bytes. Without pandas and pyarrow: a site's process holds neither.

A path names

* one file: ``.parquet``, ``.csv`` or ``.csv.gz``, in capitals or not;
* a folder: all files of these kinds in it and in its folders, but for names that begin with ``.`` or ``_``, by name. A folder
  called ``date=2019-01-07`` gives every row in it a column ``date`` with that value (as Hive, Spark and DuckDB write them);
* or a pattern: ``rows/2019-*.parquet``, ``rows/date=2019-*/*.csv``, by name, too.

So a new file in the folder is there in the next round. Whatever is no plain file (a pipe, a device) is never waited for.
"""

from __future__ import annotations

import glob
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from fedround.errors import ContractError, SetupError

Format = Literal["parquet", "csv", "csv.gz"]
FORMATS: tuple[Format, ...] = ("parquet", "csv.gz", "csv")
KINDS = "expected a .parquet or .csv file (or .csv.gz), a folder of such files, or a pattern like rows/2019-*.parquet"
MOST_PARTS = 100_000
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Part:
    """One file of rows."""

    path: Path
    format: Format
    name: str
    """Relative to what the path names; for one file alone: empty. Parts are in the order of their names."""
    values: tuple[tuple[str, str | None], ...] = ()
    """What the names of its folders say of each of its rows: (column, value)."""


def format_of(path: Path) -> Format | None:
    """What the name says; None: no file of rows."""
    return next((known for known in FORMATS if path.name.lower().endswith(f".{known}")), None)


def ending_of(path: Path) -> str:
    """".csv.gz" of x.csv.gz, in small letters; empty for what is no file of rows."""
    found = format_of(path)
    return "" if found is None else f".{found}"


def is_typed(path: Path) -> bool:
    """Whether the files say what type each column has: all of them are Parquet."""
    return all(part.format == "parquet" for part in parts_of(path))


def parts_of(path: Path) -> tuple[Part, ...]:
    """The files of rows that a path names, in the order of their names; one at least.

    Raises SetupError if there is none, or the system says no; ContractError for another kind of file.
    """
    with in_words(path):
        if path.is_dir():
            return _in_folder(path)
        if _is_pattern(path):
            return _of_pattern(path)
        return (Part(path, _format(path), ""),)


def is_there(path: Path) -> bool:
    """Whether the path names a file. Raises as `parts_of`, but for what is missing."""
    with in_words(path):
        return path.exists() or bool(_is_pattern(path) and glob.glob(str(path), recursive=True))


def opened(path: Path) -> BufferedReader:
    """A plain file to read. Raises SetupError for what is none, or cannot be read; it never waits."""
    with in_words(path):
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise SetupError(f"rows at {path}: it is no file; {KINDS}")
        return file


def size_of(path: Path) -> int:
    """The bytes of all its parts; those of a compressed text count four times. What is not there has none."""
    try:
        return sum(os.stat(part.path).st_size * (4 if part.format == "csv.gz" else 1) for part in parts_of(path))
    except (SetupError, ContractError, OSError, ValueError):
        return 0


def digest_of(path: Path) -> bytes:
    """SHA-256 of what the path names: of a file, its bytes; of several, their names and bytes in order.

    What is not there has the digest of nothing: whoever reads it says what is wrong.
    """
    try:
        parts = parts_of(path)
    except (SetupError, ContractError):
        return hashlib.sha256(b"").digest()
    found = []
    for part in parts:
        with opened(part.path) as file, in_words(part.path):
            found.append(hashlib.file_digest(file, "sha256").digest())
    if len(parts) == 1 and not parts[0].name:
        return found[0]
    return hashlib.sha256(b"".join(hashlib.sha256(part.name.encode("utf-8", "surrogateescape")).digest() + one
                                   for part, one in zip(parts, found, strict=True))).digest()


def check_apart(train: Path, validation: Path) -> None:
    """Raise SetupError unless all files can be opened; ContractError if one is among both."""
    real = []
    for path in (train, validation):
        parts = parts_of(path)
        for part in parts:
            opened(part.path).close()
        real.append({os.path.realpath(part.path) for part in parts})
    if both := sorted(real[0] & real[1]):
        raise ContractError("training and validation rows must be two files: rows that are trained on prove nothing. "
                            f"{both[0]} is among both")


@contextmanager
def in_words(path: Path) -> Iterator[None]:
    """What the system says of a path of rows, as a SetupError."""
    try:
        yield
    except OSError as error:
        raise SetupError(f"rows at {error.filename or path} cannot be read ({error.strerror or type(error).__name__}): check "
                         "the path and the permissions") from None
    except ValueError:          # a NUL in a path
        raise SetupError(f"rows at {str(path)!r} cannot be read: no file has such a name") from None


def _format(path: Path) -> Format:
    found = format_of(path)
    if found is None:
        raise ContractError(f"rows at {path}: {KINDS}")
    return found


def _is_pattern(path: Path) -> bool:
    return glob.has_magic(str(path)) and not os.path.lexists(path)


def above(path: Path) -> Path:
    """The folder in which, or below which, all files lie that a path names."""
    if path.is_dir():
        return path
    root = path.parent
    while _is_pattern(path) and glob.has_magic(str(root)):
        root = root.parent
    return root


def check_nothing_else(folder: Path) -> None:
    """Raise ContractError if there is a file in the folder, or below it, that is none of rows, nor what Spark leaves beside
    them (`_SUCCESS`, `.part-0.parquet.crc`).
    """
    for inside, _, names in os.walk(folder):
        others = (name for name in names if format_of(Path(name)) is None and not name.startswith("_")
                  and not name.endswith(".crc"))
        if other := next(others, None):
            raise ContractError(f"rows at {folder}: there are so many files that a recipe is given their folder, not each "
                                f"of them, and {Path(inside) / other} is none of rows: put the rows in a folder of their own")


def _in_folder(folder: Path) -> tuple[Part, ...]:
    def stop(error: OSError) -> None:
        raise error

    found = []
    for at, folders, files in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        found += [Path(at, name) for name in files if not name.startswith((".", "_"))]
    return _parts([path for path in found if format_of(path) is not None], folder,
                  "it is no file, and as a folder it has no .parquet or .csv file in it")


def _of_pattern(path: Path) -> tuple[Part, ...]:
    root = above(path)
    found = [Path(one) for one in glob.glob(str(path), recursive=True)]
    folders = [one for one in found if one.is_dir()]
    inside = [part.path for one in folders for part in _in_folder(one)]
    return _parts([*(one for one in found if one not in folders and format_of(one) is not None), *inside], root,
                  f"no file of rows has a name like {path.name}")


def _parts(found: list[Path], root: Path, if_none: str) -> tuple[Part, ...]:
    if not found:
        raise SetupError(f"rows at {root}: {if_none}; {KINDS}")
    if len(found) > MOST_PARTS:
        raise ContractError(f"rows at {root}: {len(found)} files are more than {MOST_PARTS}: write larger ones")
    named = sorted((path.relative_to(root).as_posix(), path) for path in set(found))
    return tuple(Part(path, _format(path), name, _values(name)) for name, path in named)


def _values(name: str) -> tuple[tuple[str, str | None], ...]:
    pairs = [folder.partition("=") for folder in name.split("/")[:-1] if "=" in folder]
    return tuple((unquote(column), None if value == _NO_VALUE else unquote(value)) for column, _, value in pairs if column)
