"""A CSV file as batches of text: its head, and every cell as it stands there.

UTF-8, or UTF-16 with its mark; commas; line ends of any kind, and inside quotation marks. A line with more or fewer values
than the head has names is skipped: if it made the whole file unreadable, the refusal would tell of a record.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from fedround.errors import ContractError, SetupError
from validation.row_files import Format, opened

if TYPE_CHECKING:
    import pyarrow as pa

MISSING = ("", "NA", "N/A", "n/a", "#N/A", "#NA", "<NA>", "NULL", "null", "Null", "NaN", "-NaN", "NaT")
"""What stands for no value, without quotation marks; an empty text with them does, too."""

_BLOCK = 16 << 20
_LONGEST_LINE = 256 << 20
_HEAD = 1 << 20
_END = "this-is-the-end-of-the-rows"
_OTHERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass
class Csv:
    """A file that is being read."""

    head: list[str]
    batches: Iterator[pa.RecordBatch]
    """Of columns "0", "1", …: bytes, or null where there is no value."""
    skipped: int = 0
    """Lines that were skipped so far."""


def read(path: Path, form: Format, most_bytes: int) -> Csv:
    """Read a file; nothing of it is kept.

    most_bytes: more than these, once unpacked, are a MemoryError. Raises SetupError if it cannot be read; ContractError,
    which quotes no value, if it is damaged, has no head, or has another delimiter than a comma. The batches raise them, too.
    """
    found = Csv(_head_of(path, form, most_bytes), iter(()))
    found.batches = _batches(path, form, most_bytes, found)
    return found


def _batches(path: Path, form: Format, most_bytes: int, found: Csv) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    from pyarrow import csv as arrow

    names, ended = [str(place) for place in range(len(found.head))], False

    def skip(line: Any) -> str:
        nonlocal ended
        if line.actual_columns == 1 and line.text == _END:
            ended = True
        else:
            found.skipped += 1
        return "skip"

    stream = _Stream(path, form, most_bytes, tail=f"\n{_END}".encode())
    with stream, pa.PythonFile(stream, mode="r") as source:
        reader = arrow.open_csv(
            source, arrow.ReadOptions(use_threads=False, column_names=names, block_size=_block(path, form)),
            arrow.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
            arrow.ConvertOptions(check_utf8=False, column_types=dict.fromkeys(names, pa.binary()), null_values=list(MISSING),
                                 strings_can_be_null=True, quoted_strings_can_be_null=False))
        before: pa.RecordBatch | None = None
        first = True
        for batch in reader:
            if batch.num_rows == 0:
                continue
            if before is not None:
                yield before
            before, first = batch.slice(1) if first else batch, False
        if before is not None:
            if len(names) == 1 and before.num_rows and before.column(0)[-1].as_py() == _END.encode():
                before, ended = before.slice(0, before.num_rows - 1), True
            yield before
    if not ended:
        raise ContractError(f"rows at {path}: not a readable csv file: a quotation mark is opened and never closed; export "
                            "it again")


def _block(path: Path, form: Format) -> int:
    """How much is parsed at a time: a line must fit into it."""
    return _BLOCK if form == "csv.gz" else max(1 << 16, min(_LONGEST_LINE, max(_BLOCK, path.stat().st_size + 64)))


def _head_of(path: Path, form: Format, most_bytes: int) -> list[str]:
    with _Stream(path, form, most_bytes, tail=b"") as stream:
        text = stream.first(_HEAD).decode(errors="replace")
    if not text.strip():
        raise ContractError(f"rows at {path}: not a readable csv file: it is empty; export it again, with the columns' names "
                            "in the first line")
    try:
        head = next((cells for cells in csv.reader(io.StringIO(text, newline=""), strict=True) if cells), [])
    except csv.Error:
        raise ContractError(f"rows at {path}: not a readable csv file: its first line is no list of names; export it again"
                            ) from None
    if any("\0" in name for name in head):
        raise ContractError(f"rows at {path}: not a readable csv file: there are NULs in its first line; save it as UTF-8")
    if any("\ufffd" in name for name in head):
        raise ContractError(f"rows at {path}: not a readable csv file: the names in its first line are no UTF-8; save it as "
                            "UTF-8")
    line = text.lstrip("\r\n").splitlines()[0]
    for other, called in _OTHERS.items():
        if line.count(other) > line.count(","):
            raise ContractError(f"rows at {path}: {called} stand between its columns, expected commas; export it again with "
                                "commas, and a point in numbers (1.5)")
    return head


class _Stream(io.RawIOBase):
    """The file's text as UTF-8, unpacked, without its mark, and a tail behind it. It is read from the front only."""

    def __init__(self, path: Path, form: Format, most_bytes: int, tail: bytes):
        super().__init__()
        self._path, self._most, self._file = path, most_bytes, opened(path)
        self._blocks, self._left, self._tail = self._text(form), memoryview(b""), tail

    def readable(self) -> bool:
        return True

    def first(self, size: int) -> bytes:
        """What stands at the beginning, up to this size; for who reads no further."""
        found = b""
        while len(found) < size and (block := self.read(size - len(found))):
            found += block
        return found

    def readinto(self, buffer: Any) -> int:
        """As much as fits, and less only at the end: a line must fit into what is read at once."""
        view, at = memoryview(buffer).cast("B"), 0
        while at < len(view) and self._next():
            taken = self._left[:len(view) - at]
            view[at:at + len(taken)] = taken
            at, self._left = at + len(taken), self._left[len(taken):]
        return at

    def _next(self) -> bool:
        if not self._left:
            self._left = memoryview(next(self._blocks, b""))
        if not self._left:
            self._left, self._tail = memoryview(self._tail), b""
        return len(self._left) > 0

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def _text(self, form: Format) -> Iterator[bytes]:
        """Bytes that are no text are replaced here: Arrow would stop at a line that it is to skip, if one is in it."""
        total, decoder = 0, None
        for block in self._unpacked(form):
            total += len(block)
            if total > self._most:
                raise MemoryError
            if decoder is None:
                wide = block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
                decoder = codecs.getincrementaldecoder("utf-16" if wide else "utf-8-sig")(errors="replace")
            if made := decoder.decode(block).encode("utf-8", "replace"):
                yield made
        if decoder is not None and (rest := decoder.decode(b"", final=True)):
            yield rest.encode("utf-8", "replace")

    def _unpacked(self, form: Format) -> Iterator[bytes]:
        source: BinaryIO | gzip.GzipFile = gzip.GzipFile(fileobj=self._file) if form == "csv.gz" else self._file
        try:
            while block := source.read(1 << 20):
                yield block
        except (EOFError, gzip.BadGzipFile, zlib.error):
            damaged = True
        except OSError as error:
            raise SetupError(f"rows at {self._path} cannot be read ({error.strerror}): check the disk") from None
        else:
            damaged = False
        if damaged:
            raise ContractError(f"rows at {self._path}: not a whole gzip file; copy it again, or unpack it to a .csv file")
