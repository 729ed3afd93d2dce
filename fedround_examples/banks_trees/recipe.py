"""Who will default on a credit card next month, from six months of bills, payments and payment status: boosted trees.

Every feature lies between bounds that everybody knows; splits are drawn between them. Sex, age, education and marriage are
in the rows and are not used.
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

AXES = (
    *[Axis(low=-2, high=4)] * 6,                                    # the status of each month
    Axis(low=10_000, high=1_000_000),                               # the limit
    *[Axis(low=0, high=6)] * 12,                                    # bills and payments: powers of ten
    Axis(low=0, high=6, chance=3), Axis(low=0, high=3, chance=3),   # in how many months late, and how late at most
    *[Axis(low=-1, high=2)] * 6,                                    # how much of the limit is used
)
TREES = Trees(rounds=20, per_round=30, depth=4, learning_rate=0.05, l2=0.01, seed=1, axes=AXES)


def features(rows: pd.DataFrame) -> npt.NDArray[np.float32]:
    """One for each axis."""
    limit_N1, bills_N6, payments_N6 = (rows[names].to_numpy(float) for names in (["LIMIT_BAL"], BILLS, PAYMENTS))
    status_N6 = rows[STATUS].to_numpy().clip(-2, 4)
    late_N6 = status_N6.clip(0, 3)
    features_NF = np.concatenate([
        status_N6, limit_N1.clip(10_000, 1_000_000), np.log10(bills_N6.clip(1, 1e6)), np.log10(payments_N6.clip(1, 1e6)),
        (late_N6 > 0).sum(axis=1, keepdims=True), late_N6.max(axis=1, keepdims=True),
        (bills_N6 / limit_N1.clip(1)).clip(-1, 2),
    ], axis=1)
    return features_NF.astype(np.float32)


def labels(rows: pd.DataFrame) -> npt.NDArray[np.int64]:
    """1: did not pay in the month after."""
    return rows["DEFAULT"].to_numpy(np.int64)
