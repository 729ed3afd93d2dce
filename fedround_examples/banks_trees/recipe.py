"""Who will default on a credit card next month, from six months of bills, payments and payment status: boosted trees.

Few features, each made of much: a random split about one of six months' bills says little, and is paid for with as much
noise as any. Splits are drawn between bounds within which most cards lie, as everybody knows. Sex, age, education and
marriage are in the rows and are not used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedround.learning.trees.spec import Axis, Trees

if TYPE_CHECKING:
    import pandas as pd

NAME = "banks-trees"

STATUS = ["PAY_0", "PAY_2", "PAY_3", "PAY_4", "PAY_5", "PAY_6"]    # -2 no use, -1 paid, 0 paid in part, n months late
BILLS = ["BILL_AMT1", "BILL_AMT2", "BILL_AMT3", "BILL_AMT4", "BILL_AMT5", "BILL_AMT6"]
PAYMENTS = ["PAY_AMT1", "PAY_AMT2", "PAY_AMT3", "PAY_AMT4", "PAY_AMT5", "PAY_AMT6"]
RECENT = np.array([0.35, 0.25, 0.15, 0.1, 0.1, 0.05])              # what each month counts, the last one first

AXES = (
    Axis(low=-2, high=2.5, chance=2),       # the last month's status
    Axis(low=0, high=2.5, chance=3),        # how late, the last months most of all
    Axis(low=0, high=6, chance=2),          # in how many months late
    Axis(low=4.2, high=5.7, chance=2),      # the limit, in powers of ten
    Axis(low=2, high=5),                    # the largest payment
    Axis(low=-2.5, high=0),                 # all payments, as a share of the limit
    Axis(low=2, high=5.5),                  # the last bill
    Axis(low=0, high=1.2),                  # how much of the limit it uses
    Axis(low=0, high=1),                    # how much of the limit bills use, on average
)
TREES = Trees(rounds=20, per_round=30, depth=4, learning_rate=0.05, l2=0.01, seed=1, axes=AXES)


def features(rows: pd.DataFrame) -> npt.NDArray[np.float32]:
    """One for each axis."""
    limit_N1, bills_N6, payments_N6 = (rows[names].to_numpy(float) for names in (["LIMIT_BAL"], BILLS, PAYMENTS))
    status_N6 = rows[STATUS].to_numpy().clip(-2, 4)
    late_N6, used_N6 = status_N6.clip(0, 3), (bills_N6 / limit_N1.clip(1)).clip(-1, 2)
    features_NF = np.column_stack([
        status_N6[:, 0], late_N6 @ RECENT, (late_N6 > 0).sum(axis=1), power_of_ten(limit_N1),
        power_of_ten(payments_N6.max(axis=1)), np.log10((payments_N6.sum(axis=1) / limit_N1[:, 0].clip(1)).clip(1e-4, 10)),
        power_of_ten(bills_N6[:, 0]), used_N6[:, 0], used_N6.mean(axis=1)])
    return features_NF.astype(np.float32)


def labels(rows: pd.DataFrame) -> npt.NDArray[np.int64]:
    """1: did not pay in the month after."""
    return rows["DEFAULT"].to_numpy(np.int64)


def power_of_ten(amount: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """0 for one dollar or less, 6 for a million or more."""
    logarithm: npt.NDArray[np.float64] = np.log10(amount.clip(1, 1e6))
    return logarithm
