"""Who will default on a credit card next month: boosted trees on the columns of the table as they are.

Bounds are what a form allows or a currency makes possible; nobody looked at rows for them. Sex, age, education and marriage
are in the rows and are not used.
"""

from fedround.learning.columns import Numeric
from fedround.learning.trees.spec import Trees

NAME = "banks-trees"

MONTHS = ("1", "2", "3", "4", "5", "6")
STATUS = ("PAY_0", "PAY_2", "PAY_3", "PAY_4", "PAY_5", "PAY_6")     # -2 no use, -1 paid, 0 paid in part, n months late

COLUMNS = (
    *(Numeric(name, low=-2, high=4, missing=False) for name in STATUS),
    Numeric("LIMIT_BAL", low=10_000, high=1_000_000, missing=False),
    *(Numeric(f"BILL_AMT{month}", low=0, high=1_000_000, scale="log", missing=False) for month in MONTHS),
    *(Numeric(f"PAY_AMT{month}", low=0, high=1_000_000, scale="log", missing=False) for month in MONTHS),
)
TARGET = "DEFAULT"
TREES = Trees(rounds=10, per_round=30, depth=4, learning_rate=0.07, l2=0.005)
