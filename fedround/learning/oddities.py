"""Columns that COLUMNS and a site's rows do not agree on: for who may see the rows.

N rows, F features.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fedround.learning.columns import Category, Columns, Float32

MANY = 0.5
"""The share of rows from which on something is odd."""


def oddities(columns: Columns, features_NF: Float32) -> Iterator[str]:
    """What most rows have in common that no model can use, in words; features_NF: as `Columns.encode` made them."""
    at = 0
    for one in columns.columns if len(features_NF) else ():
        here_NW, at = features_NF[:, at:at + one.width], at + one.width
        missing_N = here_NW[:, -1] == 1 if one.missing else np.zeros(len(here_NW), np.bool_)
        if (share := float(missing_N.mean())) > MANY:
            yield f"'{one.column}' misses in {share:.0%} of the rows"
            continue
        if isinstance(one, Category):
            share = float(here_NW[~missing_N, len(one.values)].mean())
            if share > MANY:
                yield f"'{one.column}' is \"other\" in {share:.0%} of the rows that have it: look at the recipe's list"
        elif one.kind != "truth" and (share := float(np.isin(here_NW[~missing_N, 0], (0, 1)).mean())) > MANY:
            yield f"'{one.column}' is at a bound or beyond it in {share:.0%} of the rows that have it: another unit?"
