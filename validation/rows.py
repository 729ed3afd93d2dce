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

from validation.contract import Check
from validation.row_files import is_typed
from validation.tables import Table, memory_for, plain_frame, to_frame, too_large

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["batch_of", "is_typed", "limited_by", "memory_for", "numbers_in", "passes", "places_that_fail", "plain_frame",
           "read_form", "read_rows", "read_typed", "silence", "too_large"]
_CPU_S = 900


def read_rows(path: Path, *, dates: bool = True) -> pd.DataFrame:
    """The rows that a path names (`row_files`), in the types of `kinds`: whole numbers are float64 if one of them misses.

    dates: False: days in a CSV file stay texts. Raises as `tables.Table`. No message, and no exception behind it, quotes a
    value.
    """
    return plain_frame(read_typed(path, dates=dates))


def read_typed(path: Path, columns: Sequence[str] | None = None, *, dates: bool = True,
               exactly: bool = False) -> pd.DataFrame:
    """The same, all columns or those of these that are there, as `tables.to_frame` has them: a gap changes no type.

    exactly: for a recipe, to which no number changes another row's type, either.
    """
    with silence():
        return to_frame(list(Table(path, columns, dates=dates).batches(exactly=exactly)))


def limited_by(paths: Sequence[Path]) -> None:
    """From here on the system gives this process no more memory than these files explain, and some minutes of work. For a
    process that does nothing else. Tighter limits of its parent stay.
    """
    for what, most in ((resource.RLIMIT_DATA, memory_for(paths)), (resource.RLIMIT_CPU, _CPU_S), (resource.RLIMIT_CORE, 0)):
        soft, hard = resource.getrlimit(what)
        known = [most, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
        resource.setrlimit(what, (min(known), hard))


def numbers_in(values: pd.Series[Any]) -> npt.NDArray[np.float64]:
    """What the cells say, (N,); nan: no number. Not by `pandas.to_numeric`: its parser writes beyond an array."""
    return np.fromiter(map(_number, values), np.float64, len(values))


def _number(value: object) -> float:
    if isinstance(value, str) and ("_" in value or not value.isascii()):      # numbers for Python alone
        return math.nan
    try:
        return float(value)  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError):
        return math.nan


def read_form(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """The columns of a path and their types, without rows: from the schema, whatever gaps there are in `frame`."""
    if not is_typed(path):
        return frame.head(0)
    with silence():
        return to_frame([Table(path).without_rows()])


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
