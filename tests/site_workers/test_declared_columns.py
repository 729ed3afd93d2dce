"""A recipe with COLUMNS in a federation: it trains, gaps and all, and each side is told where the rows do not go with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from site_workers import preflight
from site_workers.picture import picture
from tasks.trial import differ, try_recipe
from tests import small_federation

RECIPE = '''
from torch import nn
from fedround.learning.columns import Numeric
NAME = "tiny"
COLUMNS = (Numeric("x1", low=-10, high=12), Numeric("x2", low=0, high=0.01))
TARGET = "y"


def build_model(features):
    return nn.Linear(features, 1)
'''


def test_a_federation_learns_from_declared_columns(tmp_path: Path) -> None:
    federation = small_federation.make(tmp_path, recipe=RECIPE)
    north = federation.site("north")
    rows = pd.read_parquet(north.settings.data.train)
    rows.loc[::4, "x1"] = np.nan
    rows.to_parquet(north.settings.data.train)
    assert len(federation.round().updates) == 3
    found = {finding.check: finding for finding in preflight.preflight(north.folder)}
    assert found["rows"].detail == "300 training rows, 80 held out"
    assert "'x2' is at a bound or beyond it in" in found["recipe"].detail
    assert "'x1': it ends at 10 in the contract, at 12 in COLUMNS: rows above" in found["recipe"].detail
    assert picture(north.folder).features == ("x1", "x1 is missing", "x2", "x2 is missing")
    folder = federation.coordinator.folder
    settings = federation.coordinator.settings
    assert "'x2' is at a bound" in " ".join(try_recipe(
        folder / settings.recipe, folder / settings.test_set, federation.coordinator.federation, folder / settings.contract))
    assert [one[:45] for one in differ(folder / settings.recipe, folder / settings.contract)] == [
        "contract and COLUMNS differ: 'x1': it ends at", "contract and COLUMNS differ: 'x2': the recipe"]
