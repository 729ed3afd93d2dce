"""A site's rows, from its files, and single checks of a contract on them.

Great Expectations' own results are not fit to leave a site, not even as BOOLEAN_ONLY: `exception_info` quotes values
and `meta` holds a fingerprint of the data. So only one bit for each check or row is passed on.

Importing it costs four to eight CPU seconds and 150 MB: `validation.judging` has a process of its own for that.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import resource
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedround.errors import ContractError, SetupError
from validation.contract import Check

if TYPE_CHECKING:
    import pandas as pd

FORMATS = (".parquet", ".csv")
_ROOM_BYTES, _PER_BYTE = 1 << 30, 32
_CPU_S = 900


def read_rows(path: Path) -> pd.DataFrame:
    """Read a site's rows from a ``.parquet`` or ``.csv`` file.

    Raises SetupError if there is no such file or it may not be read; ContractError if it is of another kind, damaged
    or without rows. No message, and no exception behind it, quotes the file.
    """
    if path.suffix not in FORMATS:
        raise ContractError(f"rows at {path}: expected a .parquet or .csv file")
    if path.exists() and not path.is_file():        # nobody waits for what never comes out of a pipe
        raise SetupError(f"rows at {path}: it is no file; give the path of a .parquet or .csv file")
    try:
        path.open("rb").close()
    except OSError as error:
        raise SetupError(f"rows at {path} cannot be read ({error.strerror}): check the path and the permissions in the "
                         "site's settings") from None
    if _declares_too_much(path):
        raise ContractError(too_large(path))
    frame = _parsed(path)
    # Raised out here: a parser's error quotes lines of the file, and inside an `except` it would travel as __context__.
    if frame is None:
        raise ContractError(f"rows at {path}: not a readable {path.suffix[1:]} file; export it again")
    if frame.empty:
        raise ContractError(f"rows at {path}: there are no rows in it")
    return frame


def memory_for(paths: Sequence[Path]) -> int:
    """The memory limit, in bytes, to read these files. It allows for normal compression; a decompression bomb needs more."""
    return _ROOM_BYTES + _PER_BYTE * sum(path.stat().st_size for path in paths if path.is_file())


def too_large(path: Path) -> str:
    """The message about a file that needs more."""
    return (f"rows at {path}: to read them takes more than the {memory_for([path]) >> 20} MiB that a file of this size may "
            "take; export them again, with fewer rows or columns, or as CSV")


def limited_by(paths: Sequence[Path]) -> None:
    """From here on the system gives this process no more memory than these files explain, and some minutes of work. For a
    process that does nothing else. Tighter limits of its parent stay.
    """
    for what, most in ((resource.RLIMIT_DATA, memory_for(paths)), (resource.RLIMIT_CPU, _CPU_S), (resource.RLIMIT_CORE, 0)):
        soft, hard = resource.getrlimit(what)
        known = [most, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
        resource.setrlimit(what, (min(known), hard))


def _declares_too_much(path: Path) -> bool:
    """Whether the declared numbers of a Parquet file alone need too much memory: a column with one repeated value has few
    bytes in the file.
    """
    if path.suffix != ".parquet":
        return False
    import pyarrow.parquet as pq

    with silence():
        try:
            found = pq.read_metadata(path)
        except Exception:           # damaged: what reads it says so
            return False
    return bool(8 * found.num_rows * max(1, found.num_columns) > memory_for([path]))


def _parsed(path: Path) -> pd.DataFrame | None:
    import pandas as pd

    with silence():
        try:
            # The default number parser of pandas writes beyond an array: "1\n1e3235360285" (3.0.5).
            if path.suffix == ".parquet":
                return pd.read_parquet(path)
            # A damaged line is skipped. If it made the whole file unreadable, the refusal would reveal it.
            return _with_numbers(pd.read_csv(path, low_memory=False, float_precision="round_trip", on_bad_lines="skip",
                                             encoding_errors="replace"))
        except MemoryError:
            raise
        except Exception:   # whatever a damaged file provokes in a parser; its words may quote the file
            return None


def _with_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """A CSV file's columns, as numbers if most of its values are. A text among them becomes a gap and does not turn the
    column into texts.
    """
    import pandas as pd

    for name in frame.columns:
        if not pd.api.types.is_numeric_dtype(frame[name]):
            number_N = numbers_in(frame[name])
            if 2 * np.count_nonzero(~np.isnan(number_N)) > frame[name].notna().sum():
                frame[name] = number_N
    return frame


def numbers_in(values: pd.Series[Any]) -> npt.NDArray[np.float64]:
    """What the cells say, (N,); nan: no number. Not by `pandas.to_numeric`, which has the parser that `_parsed` avoids."""
    return np.fromiter(map(_number, values), np.float64, len(values))


def _number(value: object) -> float:
    if isinstance(value, str) and ("_" in value or not value.isascii()):      # numbers for Python alone
        return math.nan
    try:
        return float(value)  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError):
        return math.nan


def read_form(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """The columns of a file and their types, without reading rows: from the schema, whatever gaps there are in `frame`."""
    if path.suffix != ".parquet":
        return frame.head(0)
    import pyarrow.parquet as pq

    found: pd.DataFrame = pq.read_schema(path).empty_table().to_pandas()
    return found


def batch_of(frame: pd.DataFrame) -> Any | None:
    """The rows in Great Expectations' form, or None if it refuses them: it hashes every cell, and a hash can fail."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"     # read at import
    import great_expectations as gx

    context: Any = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    try:
        return asset.add_batch_definition_whole_dataframe("rows").get_batch({"dataframe": frame})
    except Exception:   # its words would quote the frame
        return None


def passes(check: Check, batch: Any) -> bool:
    """Whether all of the rows pass. A check that cannot be evaluated (a text among numbers) has not passed."""
    from great_expectations.expectations.registry import get_expectation_impl

    try:
        implementation: Any = get_expectation_impl(check.type)
        return batch.validate(implementation(**check.kwargs), result_format="BOOLEAN_ONLY").success is True
    except Exception:   # a check that cannot be evaluated has not passed; why would be a leak
        return False


def places_that_fail(check: Check, batch: Any) -> tuple[int, ...] | None:
    """The rows that fail a check which looks at each by itself; None if it cannot be evaluated."""
    from great_expectations.expectations.registry import get_expectation_impl

    try:
        implementation: Any = get_expectation_impl(check.type)
        kwargs = {key: value for key, value in check.kwargs.items() if key != "mostly"}
        told = batch.validate(implementation(**kwargs), result_format={"result_format": "COMPLETE"}).result
        return tuple(int(place) for place in told["unexpected_index_list"])
    except Exception:   # as in `passes`
        return None


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """No log record, warning or line on the standard streams of this process, by anyone, until the end."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere),
              contextlib.redirect_stderr(nowhere), warnings.catch_warnings()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
