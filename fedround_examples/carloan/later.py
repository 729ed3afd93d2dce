"""The loans of later months, as they come to the twelve banks: for the demonstration of drift."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fedround_examples.carloan.split import SOURCE, SOURCE_SHA256, as_banks_have_them, owner_of
from fedround_examples.story import read_source

MONTHS = ("2019-02", "2019-03", "2019-04")
"""The columns change on the last day of March."""
_HELD_OUT = 5


def deliver(month: str, data: Path, source: Path = SOURCE) -> None:
    """Replace the rows of every bank below `data` by its loans of this month, each with its day."""
    rows = read_source(source, SOURCE_SHA256)
    rows = rows[rows["timestamp"].dt.strftime("%Y-%m") == month]
    loans: pd.DataFrame = as_banks_have_them(rows).assign(day=rows["timestamp"].dt.strftime("%Y-%m-%d"))
    for bank, own in loans.groupby(owner_of(loans)):
        held_out = pd.Series(range(len(own)), index=own.index) % _HELD_OUT == 0
        for name, part in (("train", own[~held_out]), ("validation", own[held_out])):
            part.reset_index(drop=True).to_parquet(data / str(bank) / f"{name}.parquet")
