"""The cells of a column as numbers, whatever type of pandas holds them.

N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedround.errors import ContractError

if TYPE_CHECKING:
    import pandas as pd

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

_DAY_US = 86_400_000_000


def check_there(rows: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raise ContractError unless the rows have these columns."""
    if gone := [name for name in columns if name not in rows.columns]:
        raise ContractError(f"the rows have no column '{gone[0]}'" + (f" (nor {len(gone) - 1} more)" if gone[1:] else "")
                            + ", which the recipe's COLUMNS or TARGET names")


def numbers(values: pd.Series[Any]) -> tuple[Float64, Bool, Bool]:
    """Numbers and truths as numbers, (N,); where one is, (N,); where a number is or the value misses, (N,).

    As `validation.tables.to_frame` or `plain_frame` has them. A text is no number, whatever stands in it.
    """
    import pandas as pd

    if isinstance(values.dtype, pd.ArrowDtype):
        whole, fraction = (values.struct.field(part).to_numpy(np.float64, na_value=np.nan) for part in ("whole", "fraction"))
        number_N = np.where(np.isnan(whole), fraction, whole)
    elif isinstance(values.dtype, np.dtype) and values.dtype.kind in "biuf":
        number_N = values.to_numpy(np.float64)
    elif pd.api.types.is_numeric_dtype(values.dtype):       # pandas' own, which may have gaps; truths are among them
        number_N = values.to_numpy(np.float64, na_value=np.nan)
    else:
        held = values.astype(object)
        right_N = np.fromiter((isinstance(one, int | float | np.number | np.bool_) for one in held), np.bool_, len(held))
        number_N = np.where(right_N, held, np.nan).astype(np.float64)
        there_N = ~np.isnan(number_N)
        return number_N, there_N, there_N | values.isna().to_numpy()
    there_N = ~np.isnan(number_N)
    return number_N, there_N, np.ones(len(number_N), np.bool_)


def days(values: pd.Series[Any]) -> tuple[Float64, Bool, Bool]:
    """Dates and times as days since 1970, (N,); where one is, (N,); where one is or the value misses, (N,)."""
    gone_N = values.isna().to_numpy()
    if values.dtype.kind != "M":
        return np.zeros(len(values)), np.zeros(len(values), np.bool_), gone_N
    if getattr(values.dtype, "tz", None) is not None:
        values = values.dt.tz_localize(None)            # as the clock on the wall shows, as everywhere
    at_N = values.to_numpy().astype("datetime64[us]")
    return np.where(gone_N, 0, at_N.astype(np.int64)) / _DAY_US, ~gone_N, np.ones(len(values), np.bool_)
