"""What one number for each row is judged by: mean absolute error, root mean square error, R².

N rows.
"""

from __future__ import annotations

import math

import numpy as np

from fedround.learning.tasks.base import Float64
from fedround.learning.tasks.summed import hidden

SUMMED = ("rows", "absolute", "squared", "level", "level_squared")
LONGEST = (1 + 1 + 1 + 1 / 4 + 1 / 16) ** 0.5
"""Of a row's summands: the length where prediction and truth lie at opposite ends."""


def summands(predicted_N: Float64, truth_N: Float64, low: float, high: float) -> Float64:
    """`SUMMED` of each row, (N, 5): both numbers are cut to the bounds first, and measured in units of their distance. The
    level is that of the truth from the middle.
    """
    width = high - low
    predicted_N, truth_N = (np.clip(one_N, low, high).astype(np.float64) for one_N in (predicted_N, truth_N))
    apart_N, level_N = (predicted_N - truth_N) / width, (truth_N - low) / width - 0.5
    return np.stack([np.ones(len(apart_N)), np.abs(apart_N), apart_N ** 2, level_N, level_N ** 2], axis=1)


def of_sums(sum_C: Float64, noise_std: float, width: float) -> dict[str, float] | None:
    """"mae", "rmse" and, where the noise lets the spread of the truth be seen, "r2"; None: it hides the rows.

    The variance of the truth is that of these rows. R² is that of predictions and truths cut to the bounds.
    """
    if hidden(sum_C, noise_std):
        return None
    rows, absolute, squared, level, level_squared = (float(one) for one in sum_C[:5])
    spread = level_squared - level ** 2 / rows
    found = {"mae": width * max(absolute / rows, 0.0), "rmse": width * max(squared / rows, 0.0) ** 0.5}
    mean = level / rows
    if is_known(spread, noise_std * math.hypot(1, 2 * mean, mean ** 2), rows):
        found["r2"] = min(1 - squared / spread, 1.0)
    return found


def is_known(divisor: float, std: float, rows: float) -> bool:
    """Whether what a share is taken of stands out from its noise. std: of that noise, by its slopes in what was noised."""
    return divisor > 3 * std and divisor > 1e-12 * rows
