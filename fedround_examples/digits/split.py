"""Ten sites that see different digits, out of the images that scikit-learn ships.

    python -m fedround_examples.digits.split FOLDER

1,797 images of 8 by 8 pixels, each from 0 to 16. A quarter are the public test set; the others are dealt by a Dirichlet
distribution over the sites for each digit. No image is in two places. Same files every time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedround.learning.examples import Examples
from fedround.simulation.partition import Dirichlet, deal
from fedround_examples.story import Bank, Split, Story, write

HERE = Path(__file__).parent
LABEL = "digit"
SEED = 1998
TEST_IMAGES = 449
SITES, UNEVEN = 10, Dirichlet(concentration=1.0)
VALIDATION_SHARE = 0.2


def split(seed: int = SEED) -> Split:
    """The sites, and the public test set."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    images = table(pixels[order].astype(np.uint8), labels[order])
    test, owned = images.iloc[:TEST_IMAGES], images.iloc[TEST_IMAGES:]
    rows = Examples(np.zeros((len(owned), 1), np.float32), owned[LABEL].to_numpy())
    dealt = deal(UNEVEN, rows, SITES, seed)
    return Split(test, tuple(site(name, owned.iloc[places]) for name, places in dealt.items()))


def table(pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> pd.DataFrame:
    """One row an image: its pixels in hexadecimal, two letters each, and its digit."""
    return pd.DataFrame({"image": [row.tobytes().hex() for row in pixels], LABEL: labels.astype("int64")})


def site(name: str, images: pd.DataFrame) -> Bank:
    """A site that holds out the first fifth of its images, which lie in no order."""
    held_out = max(1, round(len(images) * VALIDATION_SHARE))
    return Bank(name, images.iloc[held_out:].reset_index(drop=True), images.iloc[:held_out].reset_index(drop=True))


STORY = Story(HERE, split)

if __name__ == "__main__":
    write(split(), Path(sys.argv[1]))
