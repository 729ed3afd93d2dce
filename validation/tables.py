"""Tables of rows from files: parts put together, every column in the one type of its kind (`validation.kinds`).

No message quotes a value. A message may name a column, where it says what to do about it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedround.errors import ContractError, FedroundError, SetupError
from validation import csv_rows, kinds
from validation.kinds import Counts, Kind
from validation.row_files import Format, Part, opened, parts_of, size_of

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

ROOM_BYTES, PER_BYTE = 1 << 30, 32
_ROWS = 1 << 17
"""Rows of a Parquet file that are taken at a time."""
_INDEX = re.compile(r"__index_level_[0-9]+__")


@dataclass
class _Read:
    """One part that was opened: where its columns stand, and of which kinds they are."""

    part: Part
    places: dict[str, int]
    """By name, in the order of the file."""
    kinds: dict[str, Kind | Counts] = field(default_factory=dict)
    rows: int = 0
    skipped: int = 0


def memory_for(paths: Sequence[Path]) -> int:
    """The memory limit, in bytes, to read these. It allows for normal compression; a decompression bomb needs more."""
    return ROOM_BYTES + PER_BYTE * sum(map(size_of, paths))


def too_large(path: Path) -> str:
    """The message about a file that needs more."""
    return (f"rows at {path}: to read them takes more than the {memory_for([path]) >> 20} MiB that a file of this size may "
            "take; export them again, with fewer rows or columns, or as CSV")


class Table:
    """What a path of rows names, ready to be read: names and kinds of its columns are known, no row is kept."""

    def __init__(self, path: Path, columns: Sequence[str] | None = None, *, dates: bool = True):
        """columns: only these, as far as they are there; None: all. dates: False: days in a CSV file stay texts.

        Raises SetupError if there is no such file or it may not be read; ContractError if it is of another kind, damaged,
        without rows, with columns that have one name or none, or values that are no plain ones, and if parts do not go
        together.
        """
        self.path, self._dates = path, dates
        self._parts = [_opened(part) for part in parts_of(path)]
        first = self._parts[0]
        _check_same_columns(path, self._parts)
        names = [name for name in first.places if columns is None or name in columns]
        self.every = tuple(_names(first))
        """The names of all columns, also of those that are not read."""
        for part in self._parts:
            _look(part, names, memory_for([path]))
        self.rows, self.skipped = sum(part.rows for part in self._parts), sum(part.skipped for part in self._parts)
        if self.rows == 0:
            raise ContractError(f"rows at {path}: there are no rows in it" + (
                f": none of its {self.skipped} lines has as many values as the first line has names" if self.skipped else ""))
        if ROOM_BYTES + PER_BYTE * size_of(path) < 8 * self.rows * max(1, len(names)):
            raise ContractError(too_large(path))
        self.counts = {name: sum((found for part in self._parts if isinstance(found := part.kinds[name], Counts)), Counts())
                       for name in names}
        self.kinds: dict[str, Kind] = {name: self._kind(name) for name in names}
        self._of_folders = {}
        for place, (name, _) in enumerate(first.part.values):
            if columns is None or name in columns:
                said = _texts([part.part.values[place][1] for part in self._parts])
                self.kinds[name] = self._of_text(kinds.counted(said))
                self._of_folders[name] = kinds.converted(said, self.kinds[name])

    @property
    def hints(self) -> tuple[str, ...]:
        """What is odd about columns of texts, and what to do about it."""
        return tuple(f"column '{name[:60]}' holds {hint}" for name, count in self.counts.items()
                     if (hint := count.hint) is not None)

    def batches(self, rows: int | None = None, *, exactly: bool = False) -> Iterator[pa.Table]:
        """The columns in the order of their names in the first part; at most so many rows at a time, None: as they come.

        exactly: whole numbers among which are others come as `kinds.either`, for `to_frame`.
        """
        import pyarrow as pa

        names = [name for name in self.kinds if name not in self._of_folders]
        for place, part in enumerate(self._parts):
            for found in _batches(part, names, memory_for([self.path])):
                made = {name: (kinds.plain(column, self.kinds[name], exactly=exactly) if part.part.format == "parquet"
                               else pa.chunked_array([kinds.either(column) if exactly and self.counts[name].is_mostly_whole
                                                      else kinds.converted(column, self.kinds[name])]))
                        for name, column in found.columns.items()}
                made |= {name: pa.chunked_array([pa.repeat(value[place], found.rows)])
                         for name, value in self._of_folders.items()}
                whole = pa.table(made) if made else pa.table({"": pa.nulls(found.rows)}).select([])
                yield from (whole.slice(start, rows) for start in range(0, found.rows, rows)) if rows else [whole]

    def without_rows(self) -> pa.Table:
        """The columns alone."""
        return kinds.no_rows(self.kinds)

    def _kind(self, name: str) -> Kind:
        said: list[Kind] = [found for part in self._parts if not isinstance(found := part.kinds[name], Counts)]
        kind = kinds.together([*said, *([] if len(said) == len(self._parts) else [self._of_text(self.counts[name])])])
        if kind is None:
            raise ContractError(f"rows at {self.path}: the column '{name[:60]}' is of one kind in one file and of another in "
                                f"another ({', '.join(sorted(set(said)))}): write all files alike")
        return kind

    def _of_text(self, count: Counts) -> Kind:
        return "text" if count.kind == "date" and not self._dates else count.kind


def to_frame(parts: Sequence[pa.Table]) -> pd.DataFrame:
    """As pandas has it. A whole number or a truth where one row has none is pandas' nullable `Int64` or `boolean`.

    Where whole numbers and others are together (`kinds.either`), they are so here, too, in a type of Arrow's. So the type of
    a column does not change the values of other rows: see `plain_frame`, and `by_types` of `fedround.learning.encoding`.
    """
    import pandas as pd
    import pyarrow as pa

    nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}

    def of_one(column: pa.ChunkedArray) -> pd.Series[Any]:
        if pa.types.is_struct(column.type):     # the stubs know neither Arrow here, nor None below
            return pd.Series(pd.array(column, dtype=pd.ArrowDtype(column.type)))  # type: ignore[call-overload]
        found: pd.Series[Any] = column.to_pandas(types_mapper=nullable.get if column.null_count else None)
        return found

    names = parts[0].column_names
    made = {name: of_one(_joined([part.column(name) for part in parts])) for name in names}
    return pd.DataFrame(made, index=pd.RangeIndex(sum(part.num_rows for part in parts)))


def _joined(columns: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    """One column; of one type, if parts of it are fractions, or `kinds.either`."""
    import pyarrow as pa

    if any(pa.types.is_struct(column.type) for column in columns):
        columns = [column if pa.types.is_struct(column.type) else
                   pa.chunked_array([kinds.either(chunk) for chunk in column.chunks], kinds.EITHER()) for column in columns]
    return pa.concat_tables([pa.table({"": column}) for column in columns], promote_options="permissive").column(0)


def plain_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """The same in numpy's own types: where one misses, or is none, whole numbers are float64; truths are objects."""
    import pandas as pd

    made: dict[str, Any] = {}
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.Int64Dtype):
            made[name] = frame[name].to_numpy("float64", na_value=float("nan"))
        elif isinstance(frame[name].dtype, pd.BooleanDtype):
            made[name] = frame[name].to_numpy(object, na_value=None)  # type: ignore[call-overload]
        elif isinstance(frame[name].dtype, pd.ArrowDtype):
            whole, fraction = (frame[name].struct.field(part).to_numpy("float64", na_value=float("nan"))
                               for part in ("whole", "fraction"))
            made[name] = np.where(np.isnan(whole), fraction, whole)
    return frame.assign(**made) if made else frame


# -- one part ----------------------------------------------------------------------------------------------------------


@dataclass
class _Batch:
    columns: dict[str, Any]
    rows: int


def _opened(part: Part) -> _Read:
    if part.format == "parquet":
        found = _parquet(part.path)
        head, rows = found.schema_arrow.names, found.metadata.num_rows
        found.close()
        return _Read(part, _places(part, head), rows=rows)
    return _Read(part, _places(part, csv_rows.read(part.path, part.format, memory_for([part.path])).head))


def _look(read: _Read, names: Sequence[str], most_bytes: int) -> None:
    """Find out the kinds of columns."""
    if read.part.format == "parquet":
        with _parquet(read.part.path) as file:
            for name in names:
                read.kinds[name] = _of_type(read.part, file.schema_arrow.field(read.places[name]).type, name)
        return
    counts = dict.fromkeys(names, Counts())
    for batch in _batches(read, names, most_bytes):
        read.rows += batch.rows
        for name, text in batch.columns.items():
            counts[name] += kinds.counted(text)
    read.kinds = dict(counts)


def _of_type(part: Part, found: pa.DataType, name: str) -> Kind:
    try:
        return kinds.of_type(found, name)
    except ContractError as error:
        raise ContractError(f"rows at {part.path}: {error}") from None


def _batches(read: _Read, names: Sequence[str], most_bytes: int) -> Iterator[_Batch]:
    """The columns as they are: of Parquet in its own types, of CSV as texts. No exception behind an error quotes the file."""
    path, batches = read.part.path, _raw(read, names, most_bytes)
    while True:
        try:
            found = next(batches, None)
        except (SetupError, ContractError, MemoryError):
            raise
        except Exception as error:      # of a parser, or of the disk
            wrong: FedroundError | None = _wrong(path, read.part.format, error)
        else:
            wrong = None
        if wrong is not None:
            raise wrong
        if found is None:
            return
        yield found


def _raw(read: _Read, names: Sequence[str], most_bytes: int) -> Iterator[_Batch]:
    if read.part.format == "parquet":
        with _parquet(read.part.path) as file:
            if not names:
                yield _Batch({}, read.rows)
                return
            of_file = {name: file.schema_arrow.names[read.places[name]] for name in names}
            for batch in file.iter_batches(_ROWS, columns=list(of_file.values()), use_threads=False):
                yield _Batch({name: _chunked(batch.column(batch.schema.names.index(known)))
                              for name, known in of_file.items()}, batch.num_rows)
        return
    found = csv_rows.read(read.part.path, read.part.format, most_bytes)
    for batch in found.batches:
        yield _Batch({name: kinds.readable(batch.column(read.places[name])) for name in names}, batch.num_rows)
    read.skipped = found.skipped


def _chunked(values: pa.Array) -> pa.ChunkedArray:
    import pyarrow as pa

    return pa.chunked_array([values])


def _parquet(path: Path) -> Any:
    from pyarrow.parquet import ParquetFile

    file = opened(path)
    try:
        return ParquetFile(file)
    except (MemoryError, SetupError):
        raise
    except Exception as error:      # as above
        wrong = _wrong(path, "parquet", error)
    raise wrong


def _wrong(path: Path, form: Format, error: Exception) -> FedroundError:
    if isinstance(error, OSError) and error.errno:
        return SetupError(f"rows at {path} cannot be read ({os.strerror(error.errno)}): check the path and the permissions")
    return ContractError(f"rows at {path}: not a readable {form.removesuffix('.gz')} file; export it again")


def _places(part: Part, head: Sequence[str]) -> dict[str, int]:
    """The names of columns, without blanks around them. An index is no column."""
    found: dict[str, int] = {}
    for place, name in enumerate(one.strip() for one in head):
        if _INDEX.fullmatch(name) or (name == "" and len(head) > 1 and place in {0, len(head) - 1}):
            continue        # of pandas, of R, or a comma at the end of every line
        if name == "":
            raise ContractError(f"rows at {part.path}: column {place + 1} of {len(head)} has no name: name it, or leave it "
                                "out")
        if name in found:
            raise ContractError(f"rows at {part.path}: columns {found[name] + 1} and {place + 1} are both called "
                                f"'{name[:60]}': rename one of them, or leave it out")
        found[name] = place
    for name, _ in part.values:
        if name in found:
            raise ContractError(f"rows at {part.path}: the column '{name[:60]}' stands in the file and in the name of its "
                                "folder: leave one of them out")
    return found


def _check_same_columns(path: Path, parts: Sequence[_Read]) -> None:
    first = parts[0]
    for part in parts[1:]:
        for one, other in ((first, part), (part, first)):
            lacks = [name for name in _names(other) if name not in _names(one)]
            if lacks:
                raise ContractError(f"rows at {path}: {one.part.name} has no column '{lacks[0][:60]}', which "
                                    f"{other.part.name} has: write all files alike")
        if [name for name, _ in first.part.values] != [name for name, _ in part.part.values]:
            raise ContractError(f"rows at {path}: {part.part.name} lies in folders with other names than {first.part.name}: "
                                "write all files alike")


def _names(read: _Read) -> dict[str, None]:
    return dict.fromkeys([*read.places, *(name for name, _ in read.part.values)])


def _texts(values: Sequence[str | None]) -> pa.Array:
    import pyarrow as pa

    return pa.array(list(values), pa.large_string())
