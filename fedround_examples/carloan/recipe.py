"""Will a car loan be repaid? Synthetic data; see README.md.

A linear model of pairs: every quantity is spread over a few overlapping triangles ("hats") or one-hot, and every two
quantities are multiplied. What a hidden layer would have to find is in the features already, and a linear model bears the
noise of privacy better. Every row is encoded by itself, with bounds that everybody knows.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import nn

if TYPE_CHECKING:
    import pandas as pd

NAME = "carloan-pairs"

SALARIES = ["0 - 20K €", "20K - 40K €", "40K - 60K €", "60K+ €"]
DOWNPAYMENTS = ["0%", "10%", "20%", "30%", "40%"]
LENGTHS = np.arange(6, 23)


def features(rows: pd.DataFrame) -> npt.NDArray[np.float32]:
    """724 features between -1 and 1: seven quantities, and the products of every two."""
    debt, tenure = rows["debt_to_income_ratio"].to_numpy(float), rows["driver_tenure"].to_numpy(float)
    spread = [
        rows["salary_range"].to_numpy()[:, None] == np.array(SALARIES),
        rows["size_of_downpayment"].to_numpy()[:, None] == np.array(DOWNPAYMENTS),
        rows["loan_length"].to_numpy().clip(LENGTHS[0], LENGTHS[-1])[:, None] == LENGTHS,
        rows["repaid_loan_on_prev_car"].to_numpy()[:, None] == np.arange(2),
        hats(np.log(rows["car_value"].to_numpy(float).clip(1e4, 1e6) / 1e4), 0, 2.4, 4),
        hats(-np.log((0.7334 - debt).clip(1e-3)), 0.75, 6, 5),      # crowded below 0.7334, so a logarithm from there
        hats(-np.log((7.01 - tenure).clip(1e-2)), -1.95, 3.5, 5),   # and below seven years
    ]
    quantities = [each - 1 / each.shape[1] for each in spread]      # centred: the common part is left to the bias
    pairs = [(one[:, :, None] * other[:, None]).reshape(len(rows), -1)
             for one, other in itertools.combinations(quantities, 2)]
    return np.concatenate([*quantities, *pairs], axis=1, dtype=np.float32)


def labels(rows: pd.DataFrame) -> npt.NDArray[np.int64]:
    """1: was repaid."""
    return rows["repaid"].to_numpy(np.int64)


def hats(value: npt.NDArray[np.float64], low: float, high: float, count: int) -> npt.NDArray[np.float64]:
    """How near a value is to each of `count` equidistant points, (N, count); every row adds up to one."""
    place = ((value - low) / (high - low)).clip(0, 1) * (count - 1)
    return (1 - np.abs(place[:, None] - np.arange(count))).clip(0)


def build_model() -> nn.Module:
    """One weight for each feature."""
    return nn.Sequential(nn.Linear(724, 1))
