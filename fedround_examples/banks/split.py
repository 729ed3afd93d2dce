"""Twelve banks out of one public data set: a public test set, and for each bank rows to train on and to validate on.

    python -m fedround_examples.banks.split FOLDER

The banks differ in size and in how often their clients default; otherwise their clients are drawn alike. No client is
in two places. Same seed, same files.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from fedround_examples.story import Bank, Split, Story, read_source, write

HERE = Path(__file__).parent
SOURCE = HERE / "credit_default.parquet"
SOURCE_SHA256 = "3f0ea550d9962574f5800aed0c381fefae5368164e0faf0881be446a03e21717"
LABEL = "DEFAULT"
SEED = 20_240
TEST_ROWS, TEST_DEFAULTS = 7_500, 1_659
VALIDATION_SHARE = 0.2

CLIENTS = {      # bank: clients, and how many of them default
    "bank-01": (4_550, 1_134),
    "bank-02": (3_900, 780),
    "bank-03": (3_300, 924),
    "bank-04": (2_700, 432),
    "bank-05": (2_100, 504),
    "bank-06": (1_600, 304),
    "bank-07": (1_250, 400),
    "bank-08": (950, 48),
    "bank-09": (750, 165),
    "bank-10": (550, 160),
    "bank-11": (450, 54),
    "bank-12": (400, 72),
}


def split(source: Path = SOURCE, seed: int = SEED) -> Split:
    """The public test set and the twelve banks. Raises SetupError if `source` is not the data set we know."""
    rows = read_source(source, SOURCE_SHA256).astype("int64")        # what a CSV file of the same rows would give
    generator = np.random.default_rng(seed)
    by_label = {label: generator.permutation(np.flatnonzero(rows[LABEL] == label)) for label in (0, 1)}

    def take(clients: int, defaults: int) -> pd.DataFrame:
        chosen = [by_label[1][:defaults], by_label[0][:clients - defaults]]
        by_label[1], by_label[0] = by_label[1][defaults:], by_label[0][clients - defaults:]
        return rows.iloc[generator.permutation(np.concatenate(chosen))].reset_index(drop=True)

    def bank(name: str, clients: int, defaults: int) -> Bank:
        held_out = take(round(clients * VALIDATION_SHARE), round(defaults * VALIDATION_SHARE))
        return Bank(name, take(clients - len(held_out), defaults - int(held_out[LABEL].sum())), held_out)

    return Split(take(TEST_ROWS, TEST_DEFAULTS), tuple(bank(name, *counts) for name, counts in CLIENTS.items()))


STORY = Story(HERE, split)

if __name__ == "__main__":
    write(split(), Path(sys.argv[1]))
