"""Columns as features, against a twin that looks at one value at a time."""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from fedround.learning.columns import Category, Columns, Date, Numeric, Truth
from validation.rows import read_typed

COLUMNS = Columns(columns=(
    Numeric("age", low=18, high=95), Numeric("bill", low=-10, high=1e6, scale="log", missing=False), Truth("smoker"),
    Date("since", first="2000-01-01", last="2020-01-01"), Category("sex", values=("f", "m")),
    Category("ward", values=(3, 1, 20), missing=False), Category("urgent", values=(False, True))))

EPOCH = datetime.datetime(1970, 1, 1)      # noqa: DTZ001 - files' dates have no zone
ROW = st.fixed_dictionaries({
    "age": st.none() | st.floats(allow_nan=False) | st.integers(-10, 120),
    "bill": st.none() | st.floats(-100, 2e6) | st.just(math.inf),
    "smoker": st.none() | st.booleans(),
    "since": st.none() | st.datetimes(EPOCH - datetime.timedelta(20_000), EPOCH + datetime.timedelta(20_000)),
    "sex": st.none() | st.sampled_from(["f", "m", "x", "F", "é"]),
    "ward": st.none() | st.integers(-5, 25), "urgent": st.none() | st.booleans()})
ROWS = st.lists(ROW, min_size=1, max_size=12)


def twin(row: dict[str, Any]) -> list[float] | None:
    """One row's features; None: it cannot be used."""
    def place(value: float | None, low: float, high: float) -> list[float]:
        return [0.0, 1.0] if value is None else [(min(max(value, low), high) - low) / (high - low), 0.0]

    def one_hot(value: object, values: tuple[object, ...]) -> list[float]:
        there = [float(value is not None and value == one) for one in values]
        return [*there, float(value is not None and not any(there)), float(value is None)]

    if row["bill"] is None or row["ward"] is None:
        return None
    amount = math.log1p(min(max(row["bill"], -10), 1e6) + 10) / math.log1p(1e6 + 10)
    days = None if row["since"] is None else (row["since"] - EPOCH) / datetime.timedelta(days=1)
    return [*place(row["age"], 18, 95), amount, *([0.0, 1.0] if row["smoker"] is None else [float(row["smoker"]), 0.0]),
            *place(days, 10957, 18262), *one_hot(row["sex"], ("f", "m")), *one_hot(row["ward"], (3, 1, 20))[:-1],
            *one_hot(row["urgent"], (False, True))]


def frame(rows: list[dict[str, Any]], *, nullable: bool) -> pd.DataFrame:
    """The rows in the types that files give: numpy's own, or pandas' nullable ones."""
    whole = "Int64" if nullable else "float64"
    truth = "boolean" if nullable else object
    types = {"age": "float64", "bill": "float64", "smoker": truth, "since": "datetime64[us]", "sex": object, "ward": whole,
             "urgent": truth}
    return pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=kind) for name, kind in types.items()})


@given(ROWS, st.booleans())
@settings(max_examples=30)
def test_the_columns_are_the_twins(rows: list[dict[str, Any]], nullable: bool) -> None:
    found_NF, good_N = COLUMNS.encode(frame(rows, nullable=nullable))
    assert found_NF.dtype == np.float32
    assert found_NF.shape == (len(rows), COLUMNS.width) == (len(rows), len(COLUMNS.names))
    for row, features_F, good in zip(rows, found_NF, good_N, strict=True):
        wanted = twin(row)
        assert good == (wanted is not None)
        np.testing.assert_allclose(features_F, wanted or [0.0] * COLUMNS.width, rtol=1e-6, atol=1e-7)
    assert found_NF.min(initial=0) >= 0
    assert found_NF.max(initial=0) <= 1


@given(ROWS, st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_a_row_is_encoded_by_itself(rows: list[dict[str, Any]], random: Any) -> None:
    whole_NF, good_N = COLUMNS.encode(frame(rows, nullable=True))
    some = random.sample(range(len(rows)), random.randint(1, len(rows)))
    for nullable in (True, False):
        part_MF, part_M = COLUMNS.encode(frame([rows[at] for at in some], nullable=nullable))
        assert part_MF.tobytes() == whole_NF[some].tobytes()
        assert part_M.tolist() == good_N[some].tolist()


def test_more_rows_than_are_encoded_at_a_time() -> None:
    generator = np.random.default_rng(3)
    rows = pd.DataFrame({"x": generator.normal(size=20_000), "y": generator.integers(0, 5, 20_000)})
    columns = Columns(columns=(Numeric("x", low=-1, high=1, scale="log"), Category("y", values=(4, 2))))
    whole_NF, _ = columns.encode(rows)
    order = generator.permutation(20_000)
    assert columns.encode(rows.iloc[order])[0].tobytes() == whole_NF[order].tobytes()


def test_whole_numbers_among_which_are_fractions(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("x,y\n1,a\n2.5,a\n,b\n7,\n8,c\n")
    held = read_typed(path, exactly=True)
    assert held["x"].dtype.name.startswith("struct")
    columns = Columns(columns=(Numeric("x", low=0, high=10), Category("y", values=("c", "a"))))
    plain = pd.DataFrame({"x": [1, 2.5, np.nan, 7, 8], "y": ["a", "a", "b", None, "c"]})
    assert columns.encode(held)[0].tobytes() == columns.encode(plain)[0].tobytes() != bytes(len(plain) * columns.width * 4)
