"""Four real hospitals: each with its own patients, and a test set of patients of all four.

    python -m fedround_examples.hospitals.split FOLDER

No patient is in two places. Same file, same parts.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from fedround_examples.story import Bank, Split, Story, read_source, write

HERE = Path(__file__).parent
SOURCE = HERE / "heart_disease.csv"
SOURCE_SHA256 = "6e1d7613e7dcb169c8bcededa49f5283683dc1285376adf94409392ac66b79ab"
LABEL = "disease"
SEED = 1988
HOSPITALS = {"cleveland": "cleveland", "hungarian": "budapest", "switzerland": "zurich-basel", "va": "long-beach"}
TEST_SHARE, VALIDATION_SHARE = 0.25, 0.2


class Hospital(NamedTuple):
    """One hospital's patients."""

    name: str
    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame


def split(source: Path = SOURCE, seed: int = SEED) -> Split:
    """The hospitals, and the test set. Raises SetupError if `source` is not the data set we know."""
    parts = hospitals(source, seed)
    return Split(pd.concat([part.test for part in parts], ignore_index=True),
                 tuple(Bank(part.name, part.train, part.validation) for part in parts))


def hospitals(source: Path = SOURCE, seed: int = SEED) -> list[Hospital]:
    """The test set is a quarter of each hospital's patients, drawn by label; the validation set a fifth of the others."""
    rows = read(source)
    generator, parts = np.random.default_rng(seed), []
    for value, name in HOSPITALS.items():
        patients, test = _held_out(rows[rows["hospital"] == value].drop(columns="hospital"), TEST_SHARE, generator)
        train, validation = _held_out(patients, VALIDATION_SHARE, generator)
        parts.append(Hospital(name, *(part.reset_index(drop=True) for part in (train, validation, test))))
    return parts


def read(source: Path = SOURCE) -> pd.DataFrame:
    """All 920 patients; the label is 1 for a heart disease of any degree, missing values are NaN."""
    rows = read_source(source, SOURCE_SHA256)
    return rows.assign(**{LABEL: (rows["num"] > 0).astype("int64")}).drop(columns="num")


def _held_out(rows: pd.DataFrame, share: float, generator: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows that stay, and a share that is held out: the same share of each label, and at least one row of each."""
    shuffled = rows.iloc[generator.permutation(len(rows))]
    place = shuffled.groupby(LABEL).cumcount()
    most = shuffled[LABEL].map(lambda label: max(1, round(share * int((rows[LABEL] == label).sum()))))
    return shuffled[place >= most], shuffled[place < most]


STORY = Story(HERE, split)

if __name__ == "__main__":
    write(split(), Path(sys.argv[1]))
