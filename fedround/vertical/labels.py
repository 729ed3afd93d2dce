"""Labels that are told by a coin: randomised response (Warner 1965; Ghazi et al. 2021, arXiv:2102.06062).

N rows.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fedround.errors import ContractError
from fedround.privacy.noise import NoiseSource

Int8 = npt.NDArray[np.int8]

UNTOLD = -1


def flip_chance(epsilon: float) -> float:
    """With what chance the other label is told: 1 / (1 + e^epsilon), rounded up."""
    return math.nextafter(1 / (1 + math.exp(epsilon)), 1)


def told(label_N: Int8, epsilon: float, noise: NoiseSource) -> Int8:
    """0 or 1 for each row, right with chance e^epsilon / (1 + e^epsilon); -1 stays.

    Promised: epsilon-differential privacy, without a delta, of each label: exchanged for the other, no output is more than
    e^epsilon times as likely. Which rows have a label is told. Raises ContractError for another label.
    """
    if not np.isin(label_N, (UNTOLD, 0, 1)).all():
        raise ContractError("labels are told by a coin if they are 0 or 1, and others are among them")
    # Uniform multiples of 2**-53 are below the chance at least as often as it says.
    flips_N = noise.random(len(label_N)) < flip_chance(epsilon)
    return np.where(label_N == UNTOLD, UNTOLD, label_N ^ flips_N).astype(np.int8)
