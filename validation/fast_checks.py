"""The commonest checks of a contract on a part of the rows, as whole columns at a time and without Great Expectations.

Each answers as Great Expectations does, or says that it does not know: then Great Expectations is asked. A test compares the
two on made-up tables.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from validation.contract import Check

if TYPE_CHECKING:
    import pandas as pd

Bools = npt.NDArray[np.bool_]
_EXACT = 1 << 53
"""Whole numbers below it are the same as fractions."""
_NUMBERS = frozenset({"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64", "bool"})


def failing(check: Check, frame: pd.DataFrame) -> Bools | None:
    """Which rows fail a check that looks at each by itself, (N,); None: ask Great Expectations."""
    judge = _ROWS.get(check.type)
    column = check.kwargs.get("column")
    return None if judge is None or not isinstance(column, str) else judge(frame[column], check.kwargs)


def form_holds(check: Check, form: pd.DataFrame) -> bool | None:
    """Whether a file of this form meets a check about columns and types; None: ask Great Expectations."""
    kwargs, columns = check.kwargs, list(form.columns)
    if check.type == "expect_column_to_exist" and kwargs.get("column_index") is None:
        return kwargs["column"] in columns
    if check.type == "expect_table_columns_to_match_set" and isinstance(wanted := kwargs.get("column_set"), list) and wanted:
        exact = kwargs.get("exact_match", True)
        return set(columns) == set(wanted) if exact is not False else set(wanted) <= set(columns)
    if check.type == "expect_column_values_to_be_of_type":
        found, wanted = str(form[str(kwargs["column"])].dtype), kwargs["type_"]
        if (found, wanted) == ("object", "str"):        # its values are judged one by one
            return True
        return found == wanted if found in _NUMBERS and wanted in _NUMBERS else None
    return None


def _between(values: pd.Series[Any], kwargs: dict[str, Any]) -> Bools | None:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if not _are_numbers(values) or not _a_range(low, high):
        return None
    fails_N = np.zeros(len(values), np.bool_)
    value_N = values.to_numpy(np.float64 if values.dtype.kind == "f" else np.int64)
    if values.dtype.kind != "f" and len(value_N) and max(value_N.max(), -(value_N.min() + 1)) >= _EXACT:
        return None         # Great Expectations rounds there
    if low is not None:
        fails_N |= ~(operator.gt if kwargs.get("strict_min") else operator.ge)(value_N, low)
    if high is not None:
        fails_N |= ~(operator.lt if kwargs.get("strict_max") else operator.le)(value_N, high)
    return _there(values, fails_N)


def _in_set(values: pd.Series[Any], kwargs: dict[str, Any], negated: bool = False) -> Bools | None:
    among = kwargs.get("value_set")
    if values.dtype.name == "category":
        values = values.astype(object)
    if not isinstance(among, list) or not among or not _plain(values):
        return None
    kinds = {type(one) for one in among}
    if not (kinds == {str} if values.dtype == object else kinds <= {int, float}):
        return None
    inside_N = values.isin(among).to_numpy()
    return _there(values, inside_N if negated else ~inside_N)


def _not_in_set(values: pd.Series[Any], kwargs: dict[str, Any]) -> Bools | None:
    return _in_set(values, kwargs, negated=True)


def _null(values: pd.Series[Any], _: dict[str, Any]) -> Bools:
    return values.notna().to_numpy()


def _not_null(values: pd.Series[Any], _: dict[str, Any]) -> Bools:
    return values.isna().to_numpy()


def _lengths(values: pd.Series[Any], kwargs: dict[str, Any]) -> Bools | None:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if values.dtype != object or not _plain(values) or not _a_range(low, high) or _is_strict(kwargs):
        return None
    length_N = values.str.len().to_numpy(np.float64)
    return _there(values, ~((length_N >= (0 if low is None else low)) & (length_N <= (np.inf if high is None else high))))


def _texts(values: pd.Series[Any], kwargs: dict[str, Any]) -> Bools | None:
    """For a column that holds objects, whose types are judged one by one."""
    known = values.dtype != object or (kwargs["type_"] == "str" and _plain(values))
    return np.zeros(len(values), np.bool_) if known else None


def _there(values: pd.Series[Any], fails_N: Bools) -> Bools:
    """A gap fails none of these checks."""
    return fails_N & values.notna().to_numpy()


def _plain(values: pd.Series[Any]) -> bool:
    """Whether the column holds numbers, or texts, and nothing else but gaps."""
    import pandas as pd

    return _are_numbers(values) or (
        values.dtype == object and pd.api.types.infer_dtype(values, skipna=True) == "string")


def _are_numbers(values: pd.Series[Any]) -> bool:
    return str(values.dtype) in _NUMBERS - {"bool", "uint64"}


def _is_strict(kwargs: dict[str, Any]) -> bool:
    return bool(kwargs.get("strict_min") or kwargs.get("strict_max"))


def _a_range(low: object, high: object) -> bool:
    """Whether these are a range of numbers that Great Expectations takes."""
    numbers = [one for one in (low, high) if type(one) in (int, float)]
    return len(numbers) == sum(one is not None for one in (low, high)) > 0 and numbers == sorted(numbers)  # type: ignore[type-var]


_ROWS: dict[str, Callable[[pd.Series[Any], dict[str, Any]], Bools | None]] = {
    "expect_column_values_to_be_between": _between,
    "expect_column_values_to_be_in_set": _in_set,
    "expect_column_values_to_not_be_in_set": _not_in_set,
    "expect_column_values_to_be_null": _null,
    "expect_column_values_to_not_be_null": _not_null,
    "expect_column_value_lengths_to_be_between": _lengths,
    "expect_column_values_to_be_of_type": _texts,
}
