"""Evidently on what sites have counted: values are rebuilt from two tables, and its drift report is run over them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from fedround.drift.law import Float64, rebuilt
from fedround.errors import ContractError
from validation.evidently_report import drift_preset

if TYPE_CHECKING:
    import pandas as pd

SAME = 1e-6
"""How far Evidently's distance and ours may be apart."""

Tables = Mapping[str, tuple[Float64, Float64]]
"""For each column its noised table of the first measurement, and of this one, (C,) each."""


def distances(tables: Tables, method: str) -> dict[str, float]:
    """How far each column has moved, by Evidently's `DataDriftPreset` with this one method for every column.

    A cell is a category, so Evidently chooses no bins of its own.
    """
    found = {}
    for column, (first_C, now_C) in tables.items():         # one by one: columns have different numbers of values
        if rebuilt(first_C).any() and rebuilt(now_C).any():
            _, [metric] = drift_preset(_values(column, now_C), _values(column, first_C), categories=(column,),
                                       columns=[column], cat_method=method)
            found[column] = float(metric["value"])
    return found


def check_same(ours: Mapping[str, float], evidently: Mapping[str, float]) -> None:
    """Raises ContractError if Evidently measures another distance than the simulated law is about."""
    for column, found in evidently.items():
        if not math.isclose(found, ours[column], abs_tol=SAME):
            raise ContractError(f"column '{column}': Evidently's distance is {found:.6f}, and ours {ours[column]:.6f}: the "
                                "installed Evidently measures otherwise; install the version that pyproject.toml names")


def _values(column: str, table_C: Float64) -> pd.DataFrame:
    import pandas as pd

    count_C = rebuilt(table_C).astype(np.int64)
    return pd.DataFrame({column: np.repeat([f"cell {place:04d}" for place in range(len(count_C))], count_C)})
