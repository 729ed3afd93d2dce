"""Files of rows, read a part at a time: what `validation.rows` reads whole, for files that need not fit into memory.

The same kinds for the same files: a column of a Parquet file is what its schema says; a column of a CSV file is numbers where
most of its values in the whole file are, so a CSV file is read twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fedround.errors import ContractError, SetupError
from validation import rows as gate

if TYPE_CHECKING:
    import pandas as pd

ROWS_OF_A_PART = 1 << 17
_Kind = Literal["as they are", "some numbers", "some truths", "texts"]
"""Of a CSV file's column. some numbers: and texts, which are gaps then; some truths: and gaps."""


@dataclass(frozen=True)
class RowFiles:
    """Files that together are one table of rows, in order."""

    paths: tuple[Path, ...]

    @property
    def typed(self) -> bool:
        """Whether the files say what type a column has."""
        return all(path.suffix == ".parquet" for path in self.paths)

    def forms(self) -> list[pd.DataFrame]:
        """The columns of each file, with their types where it has any, and no rows."""
        return [self._guarded(path, _form(path)) for path in self.paths]

    def parts(self, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """All rows, `ROWS_OF_A_PART` at a time, with these columns as far as a file has them, or with all.

        Raises ContractError for a file that is damaged or has no rows. No message, and no exception behind it, quotes a file.
        """
        for path in self.paths:
            parts, found = (_parquet if path.suffix == ".parquet" else _csv)(path, columns, ROWS_OF_A_PART), 0
            while (frame := self._guarded(path, parts)) is not None:
                found += len(frame)
                if len(frame):
                    yield frame
            if found == 0:
                raise ContractError(f"rows at {path}: there are no rows in it")

    @staticmethod
    def _guarded(path: Path, parts: Iterator[pd.DataFrame]) -> pd.DataFrame | None:
        """The next part. Raises outside of the `except`: there, a parser's error would travel along, and quote the file."""
        try:
            with gate.silence():
                return next(parts, None)
        except MemoryError:
            raise
        except Exception:       # noqa: S110 - whatever a damaged file provokes in a parser
            pass
        raise ContractError(f"rows at {path}: not a readable {path.suffix[1:]} file; export it again")


def row_files(named: Path) -> RowFiles:
    """The file of this name; or the parts below the folder of this name, which are all its .parquet and .csv files.

    Raises SetupError if one cannot be read, ContractError for another kind of file and for a folder without any.
    """
    found = [named]
    if named.is_dir():
        found = sorted(one for one in named.rglob("*") if one.suffix in gate.FORMATS and one.is_file())
    if not found:
        raise ContractError(f"rows at {named}: there is no .parquet or .csv file in this folder")
    for path in found:
        if path.suffix not in gate.FORMATS:
            raise ContractError(f"rows at {path}: expected a .parquet or .csv file, or a folder of them")
        if path.exists() and not path.is_file():        # nobody waits for what never comes out of a pipe
            raise SetupError(f"rows at {path}: it is no file; give the path of a .parquet or .csv file, or a folder of them")
        try:
            path.open("rb").close()
        except OSError as error:
            raise SetupError(f"rows at {path} cannot be read ({error.strerror}): check the path and its permissions"
                             ) from None
    return RowFiles(tuple(found))


def _form(path: Path) -> Iterator[pd.DataFrame]:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        yield pq.read_schema(path).empty_table().to_pandas()
    else:
        import pandas as pd

        yield pd.read_csv(path, nrows=0, encoding_errors="replace")


def _parquet(path: Path, columns: Sequence[str] | None, of: int) -> Iterator[pd.DataFrame]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        wanted = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
        for part in file.iter_batches(batch_size=of, columns=wanted):
            yield part.to_pandas()


def _csv(path: Path, columns: Sequence[str] | None, of: int) -> Iterator[pd.DataFrame]:
    kinds = _kinds(path, of)
    wanted = [name for name in kinds if columns is None or name in columns]
    for part in _chunks(path, of, {name: str for name, kind in kinds.items() if kind in {"some numbers", "texts"}}):
        for name in wanted:
            if kinds[name] in {"some numbers", "some truths"}:
                part[name] = gate.numbers_in(part[name])
        yield part[wanted].reset_index(drop=True)


def _kinds(path: Path, of: int) -> dict[str, _Kind]:
    """What the columns of a whole CSV file hold, as `validation.rows.read_rows` decides it."""
    import pandas as pd

    hold: dict[str, set[str]] = {}
    more_numbers: dict[str, int] = {}
    for part in _chunks(path, of, {}):
        for name in part.columns:
            there = part[name].dropna()
            found = hold.setdefault(name, set())
            if len(there) < len(part):
                found.add("gaps")
            if len(there):
                kind = "truths" if pd.api.types.infer_dtype(there) == "boolean" else (
                    "numbers" if pd.api.types.is_numeric_dtype(there) else "texts")
                numbers = 0 if kind == "truths" else int(pd.notna(gate.numbers_in(there)).sum())
                more_numbers[name] = more_numbers.get(name, 0) + 2 * numbers - len(there)
                found.add(kind)
    return {name: "as they are" if found <= {"numbers", "gaps"} or found == {"truths"} else
            "some truths" if found == {"truths", "gaps"} else "some numbers" if more_numbers[name] > 0 else "texts"
            for name, found in hold.items()}


def _chunks(path: Path, of: int, types: dict[str, type]) -> Iterator[pd.DataFrame]:
    import pandas as pd

    with pd.read_csv(path, chunksize=of, low_memory=False, float_precision="round_trip", on_bad_lines="skip",
                     encoding_errors="replace", dtype=types) as parts:
        yield from parts
