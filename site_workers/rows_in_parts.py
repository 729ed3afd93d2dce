"""A file of rows, a part at a time, with the columns that a model needs and no others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedround.bundle import Column
from fedround.errors import ContractError, SetupError
from fedround.learning.exported import Float32
from fedround.learning.recipe import Recipe

if TYPE_CHECKING:
    import pandas as pd


def read(path: Path, columns: Sequence[Column], batch: int) -> Iterator[pd.DataFrame]:
    """The rows of a ``.parquet`` or ``.csv`` file, `batch` at a time; one at least. No message quotes the file.

    Raises SetupError if it cannot be read; ContractError for another kind of file, a column that misses or holds another kind
    of values, or no rows.
    """
    if path.suffix not in {".parquet", ".csv"}:
        raise ContractError(f"rows at {path}: expected a .parquet or .csv file")
    if path.exists() and not path.is_file():        # nobody waits for what never comes out of a pipe
        raise SetupError(f"rows at {path}: it is no file; give the path of a .parquet or .csv file")
    try:
        path.open("rb").close()
    except OSError as error:
        raise SetupError(f"rows at {path} cannot be read ({error.strerror}): check the path and the permissions") from None
    found, wanted = 0, [column.name for column in columns]
    parts = _parquet(path, wanted, batch) if path.suffix == ".parquet" else _csv(path, wanted, batch)
    while (frame := _next(parts, path)) is not None:
        if frame.empty:         # so pandas reads a file with nothing but its head
            continue
        _check_kinds(frame, columns, path)
        found += len(frame)
        yield frame
    if found == 0:
        raise ContractError(f"rows at {path}: there are no rows in it")


def encoded(recipe: Recipe, frame: pd.DataFrame, before: int) -> Float32:
    """What the recipe makes of a part. before: how many rows stand before it in the file, for the message."""
    kind = ""
    try:
        return recipe.features(frame)
    except MemoryError:
        raise
    except ContractError as error:
        kind = str(error)
    except Exception as error:      # of the recipe's code; its words may quote the rows
        kind = type(error).__name__
    raise ContractError(f"recipe '{recipe.name}' cannot encode rows {before + 1} to {before + len(frame)} ({kind}): does one "
                        "of them lack a value, or hold another type?")


def _next(parts: Iterator[pd.DataFrame], path: Path) -> pd.DataFrame | None:
    """The next part. Raises outside of the `except`: there, a parser's error would travel as __context__.

    Such an error quotes lines of the file.
    """
    try:
        return next(parts, None)
    except (ContractError, MemoryError):
        raise
    except Exception:       # noqa: S110 - of the parser
        pass
    raise ContractError(f"rows at {path}: not a readable {path.suffix[1:]} file; export it again")


def _parquet(path: Path, wanted: Sequence[str], batch: int) -> Iterator[pd.DataFrame]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        _check_names(file.schema_arrow.names, wanted, path)
        for part in file.iter_batches(batch_size=batch, columns=list(wanted)):
            yield part.to_pandas()


def _csv(path: Path, wanted: Sequence[str], batch: int) -> Iterator[pd.DataFrame]:
    import pandas as pd

    _check_names(list(pd.read_csv(path, nrows=0).columns), wanted, path)
    # As in `validation.rows`: the parser of numbers that pandas takes without being asked writes beyond an array.
    with pd.read_csv(path, usecols=list(wanted), chunksize=batch, float_precision="round_trip") as parts:
        for part in parts:
            yield part.reset_index(drop=True)


def _check_names(found: Sequence[object], wanted: Sequence[str], path: Path) -> None:
    if missing := [name for name in wanted if name not in found]:
        shown = ", ".join(f"'{name}'" for name in missing[:5]) + (" …" if len(missing) > 5 else "")
        raise ContractError(f"rows at {path}: the model needs the column{'s' if len(missing) > 1 else ''} {shown}, which "
                            f"{'are' if len(missing) > 1 else 'is'} not there; check the spelling in the head of the file")


def _check_kinds(frame: pd.DataFrame, columns: Sequence[Column], path: Path) -> None:
    from pandas.api.types import is_numeric_dtype

    for column in columns:
        values = frame[column.name]
        if column.kind == "number" and not is_numeric_dtype(values.dtype) and values.notna().any():
            raise ContractError(f"rows at {path}: the column '{column.name}' must hold numbers, and holds something else")
