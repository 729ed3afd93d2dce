"""The small federation with trees."""

from __future__ import annotations

from pathlib import Path

from tests import small_federation
from tests.small_federation import SmallFederation

RECIPE = '''"""Two numbers, twelve trees."""
from fedround.learning.columns import Numeric
from fedround.learning.trees.spec import Trees

NAME = "tiny-trees"
COLUMNS = (Numeric("x1", low=-3, high=3), Numeric("x2", low=-3, high=3))
TARGET = "y"
TREES = Trees(rounds=3, per_round=4, depth=3, learning_rate=0.3, l2=0.02)
'''


def made(root: Path, **changes: object) -> SmallFederation:
    """Three sites who let trees grow; settings as in `small_federation.make`."""
    agreed = {"recipe": RECIPE, "training": None, "optimizer": None, "aggregation": None, **changes}
    return small_federation.make(root, **agreed)
