"""Six real sites of the RAND Health Insurance Experiment: each with its own persons, and a test set of persons of all six.

    python -m fedround_examples.insurance.split FOLDER

A row is a person: the first year that it took part. No person is in two places. Same file, same parts.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from fedround_examples.story import Bank, Split, Story, read_source, write

HERE = Path(__file__).parent
SOURCE = HERE / "rand_hie.parquet"
SOURCE_SHA256 = "915732ba82d440a6e27b07be7979d3123fe1e9a19efb1948e1c9b99bac2fa3bc"
SITES = ("dayton", "seattle", "fitchburg", "franklin", "charleston", "georgetown")
SEED = 1974
TEST_SHARE, VALIDATION_SHARE = 0.25, 0.2


def split(source: Path = SOURCE, seed: int = SEED) -> Split:
    """The sites, and the test set: a quarter of each site's persons. A fifth of the others is the site's validation.

    Raises SetupError if `source` is not the data set we know.
    """
    rows, generator = read_source(source, SOURCE_SHA256), np.random.default_rng(seed)
    sites, tests = [], []
    for name in SITES:
        persons = rows[rows["place"] == name].drop(columns="place")
        shuffled = persons.iloc[generator.permutation(len(persons))].reset_index(drop=True)
        tested = round(TEST_SHARE * len(shuffled))
        held = tested + round(VALIDATION_SHARE * (len(shuffled) - tested))
        tests.append(shuffled.iloc[:tested])
        train, validation = (part.reset_index(drop=True) for part in (shuffled.iloc[held:], shuffled.iloc[tested:held]))
        sites.append(Bank(name, train, validation))
    return Split(pd.concat(tests, ignore_index=True), tuple(sites))


STORY = Story(HERE, split)

if __name__ == "__main__":
    write(split(), Path(sys.argv[1]))
