"""Twelve banks, each with one segment of a synthetic car-loan market, and public rows to choose and to judge with.

    python -m fedround_examples.carloan.split FOLDER

A bank's clients have one range of salaries and one range of car values, so no bank sees the market. No loan is in two
places. Same files every time.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from fedround_examples.story import Bank, Split, Story, read_source, write

HERE = Path(__file__).parent
SOURCE = HERE / "car_loan.parquet"
SOURCE_SHA256 = "443955289f70c9336a482f9d1e9318872aecb420a1ba10222492210587310a63"
LABEL = "repaid"
SEED = 20_190
DRIFT = "2019-02-28"            # nothing here is later
CHANGE = "2019-03-31"           # the day on which the columns begin to lie otherwise, measured: docs/drift.md
OLD_ROWS = 60_000               # the banks' and the public development rows; the loans after them are the test set
PUBLIC_ROWS = 6_000
VALIDATION_SHARE = 0.2

SALARIES = {"0 - 20K €": "under-20k", "20K - 40K €": "20k-40k", "40K - 60K €": "40k-60k", "60K+ €": "over-60k"}
CARS = {"small": 16_500, "middle": 31_000, "large": np.inf}      # up to this value in euros
NAMES = tuple(f"{salary}-{car}" for salary, car in itertools.product(SALARIES.values(), CARS))


def split(source: Path = SOURCE) -> Split:
    """The banks, and as public test set all later loans before the drift. Raises SetupError for other data."""
    return _split(source)[0]


def public_rows(source: Path = SOURCE) -> pd.DataFrame:
    """Loans that belong to no bank and to no test set. Settings are chosen on them, which costs no bank any privacy."""
    return _split(source)[1]


def as_banks_have_them(rows: pd.DataFrame) -> pd.DataFrame:
    """Plain types, and no times."""
    return rows.drop(columns="timestamp").astype({
        "salary_range": str, "size_of_downpayment": str, "car_value": "int64", "loan_length": "int64",
        "repaid_loan_on_prev_car": "int64", LABEL: "int64", "debt_to_income_ratio": float, "driver_tenure": float})


def owner_of(loans: pd.DataFrame) -> pd.Series[str]:
    """The bank of each loan, by its segment."""
    car = pd.cut(loans["car_value"], [0, *CARS.values()], labels=list(CARS)).astype(str)
    return loans["salary_range"].map(SALARIES) + "-" + car


def _split(source: Path) -> tuple[Split, pd.DataFrame]:
    rows = read_source(source, SOURCE_SHA256)
    early = as_banks_have_them(rows[rows["timestamp"] < DRIFT])
    generator = np.random.default_rng(SEED)
    shuffled = early.iloc[generator.permutation(OLD_ROWS)].reset_index(drop=True)
    owned = shuffled.iloc[PUBLIC_ROWS:]
    owner = owner_of(owned)

    def bank(name: str) -> Bank:
        clients = owned[owner == name].reset_index(drop=True)
        held_out = round(len(clients) * VALIDATION_SHARE)
        return Bank(name, clients.iloc[held_out:].reset_index(drop=True), clients.iloc[:held_out])

    test = early.iloc[OLD_ROWS:].reset_index(drop=True)
    return Split(test, tuple(bank(name) for name in NAMES)), shuffled.iloc[:PUBLIC_ROWS]


STORY = Story(HERE, split)

if __name__ == "__main__":
    write(split(), Path(sys.argv[1]))
