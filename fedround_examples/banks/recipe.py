"""Who will default on a credit card next month, from six months of bills, payments and payment status.

Every row is encoded by itself, with bounds that everybody knows: no bank needs another bank's means or maxima.
Sex, age, education and marriage are in the rows and are not used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import nn

if TYPE_CHECKING:
    import pandas as pd

NAME = "banks-mlp"

STATUS = ["PAY_0", "PAY_2", "PAY_3", "PAY_4", "PAY_5", "PAY_6"]    # -2 no use, -1 paid, 0 paid in part, n months late
BILLS = ["BILL_AMT1", "BILL_AMT2", "BILL_AMT3", "BILL_AMT4", "BILL_AMT5", "BILL_AMT6"]
PAYMENTS = ["PAY_AMT1", "PAY_AMT2", "PAY_AMT3", "PAY_AMT4", "PAY_AMT5", "PAY_AMT6"]
LEVELS = np.arange(-2, 4)                                          # 3 stands for three months or more


def features(rows: pd.DataFrame) -> npt.NDArray[np.float32]:
    """57 features between -4 and 2: one-hot payment status, how often and how long late, amounts, use of the limit."""
    limit_N1, bills_N6, payments_N6 = (rows[names].to_numpy(float) for names in (["LIMIT_BAL"], BILLS, PAYMENTS))
    status_N6 = rows[STATUS].to_numpy().clip(LEVELS[0], LEVELS[-1])
    features_NF = np.concatenate([
        (status_N6[:, :, None] == LEVELS).reshape(len(rows), -1),
        (status_N6 > 0).sum(axis=1, keepdims=True) / 3, status_N6.max(axis=1, keepdims=True).clip(0) / 2,
        log_scale(limit_N1), log_scale(bills_N6), log_scale(payments_N6),
        (bills_N6 / limit_N1.clip(1)).clip(-1, 2),
    ], axis=1)
    return features_NF.astype(np.float32)


def labels(rows: pd.DataFrame) -> npt.NDArray[np.int64]:
    """1: did not pay in the month after."""
    return rows["DEFAULT"].to_numpy(np.int64)


def log_scale(amount: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """-4 for one dollar or less, 0 for 10,000, 2 for a million or more."""
    logarithm: npt.NDArray[np.float64] = np.log10(amount.clip(1, 1e6))
    return logarithm - 4


def build_model() -> nn.Module:
    """One hidden layer of 32."""
    return nn.Sequential(nn.Linear(57, 32), nn.Tanh(), nn.Linear(32, 1))
