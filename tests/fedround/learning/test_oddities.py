"""What most rows have in common that no model can use."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fedround.learning.columns import Category, Columns, Date, Numeric, Truth
from fedround.learning.oddities import oddities

COLUMNS = Columns(columns=(
    Numeric("age", low=18, high=95), Category("sex", values=("f", "m")), Truth("smoker", missing=False),
    Date("since", first="2000-01-01", last="2030-01-01")))


def rows() -> pd.DataFrame:
    return pd.DataFrame({"age": [20.0, 30, 40, 50], "sex": ["f", "m", "f", "x"], "smoker": [True, True, True, True],
                         "since": pd.to_datetime(["2001-01-01", "2010-01-01", "2020-05-05", None])})


@pytest.mark.parametrize(("change", "says"), [
    ({}, []), ({"age": [0.2, 0.3, 0.4, 50]}, ["'age' is at a bound or beyond it in 75% of the rows"]),
    ({"age": [np.nan, np.nan, np.nan, 120]}, ["'age' misses in 75% of the rows"]),
    ({"sex": ["F", "M", None, "F"]}, ["'sex' is \"other\" in 100% of the rows that have it"]),
    ({"since": pd.to_datetime(["1901-01-01"] * 3 + [None])}, ["'since' is at a bound"]),
    ({"age": [5.0] * 4, "sex": [None] * 4}, ["'age' is at a bound", "'sex' misses in 100%"])])
def test_oddities(change: dict[str, object], says: list[str]) -> None:
    features_NF, _ = COLUMNS.encode(rows().assign(**change))
    found = list(oddities(COLUMNS, features_NF))
    assert [one[:len(words)] for one, words in zip(found, says, strict=True)] == says


def test_nothing_is_odd_about_no_rows() -> None:
    assert not list(oddities(COLUMNS, COLUMNS.encode(rows().head(0))[0]))
