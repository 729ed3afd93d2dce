"""Six workshops that keep poles upright: each with carts and poles of its own.

    python -m fedround_examples.cartpole.split FOLDER

A row is an episode's settings. Nothing of it was measured: physics are drawn around what each workshop has. Same files every
time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from fedround_examples.story import Bank, Split, Story, write

HERE = Path(__file__).parent
SEED = 1983                     # of Barto, Sutton and Anderson's cart and pole
SITES = {"dwarf": (0.25, 0.05, 5.0), "short": (0.36, 0.3, 8.0), "usual": (0.51, 0.05, 12.0), "tall": (0.73, 0.3, 5.0),
         "mast": (1.05, 0.05, 8.0), "tower": (1.5, 0.3, 12.0)}
"""Half the pole's length in metres, its mass in kilograms, the force of a push in newtons."""
TRAIN, HELD_OUT, SPREAD = 32, 64, 0.1


def split(seed: int = SEED) -> Split:
    """The sites, and a public test set of episodes of all six."""
    drawn = np.random.default_rng(seed)
    sites = tuple(Bank(name, episodes(name, TRAIN, drawn), episodes(name, HELD_OUT, drawn)) for name in SITES)
    return Split(pd.concat([episodes(name, HELD_OUT, drawn) for name in SITES], ignore_index=True), sites)


def episodes(site: str, count: int, drawn: np.random.Generator) -> pd.DataFrame:
    """So many episodes of a site: its physics, each number up to a tenth more or less, begun nearly upright."""
    physics = np.array(SITES[site]) * drawn.uniform(1 - SPREAD, 1 + SPREAD, (count, 3))
    begins = drawn.uniform(-0.05, 0.05, (count, 4))
    return pd.DataFrame(np.concatenate([physics, begins], axis=1).round(4), columns=[
        "half_length", "pole_mass", "force", "position", "speed", "angle", "turning"])


STORY = Story(HERE, split)

if __name__ == "__main__":
    write(split(), Path(sys.argv[1]))
