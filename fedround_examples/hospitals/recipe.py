"""Does an angiogram find a heart disease? Four hospitals' patients; see README.md.

What is missing is a category of its own: hospitals did not measure the same things. Every row is encoded by itself, with
bounds that everybody knows. The hospital itself is not a feature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import nn

if TYPE_CHECKING:
    import pandas as pd

NAME = "hospitals-linear"

CODES = {"sex": (0, 1), "cp": (1, 2, 3, 4), "fbs": (0, 1), "restecg": (0, 1, 2), "exang": (0, 1), "slope": (1, 2, 3),
         "ca": (0, 1, 2, 3), "thal": (3, 6, 7)}
RANGES = {"age": (30, 75), "trestbps": (95, 180), "chol": (130, 370), "thalach": (75, 190), "oldpeak": (0, 4)}
POINTS = 4


def features(rows: pd.DataFrame) -> npt.NDArray[np.float32]:
    """56 features from 0 to 1: codes one-hot, quantities over four triangles, and whether each was measured."""
    measured = rows.replace({"trestbps": {0: np.nan}, "chol": {0: np.nan}})      # nobody's is 0: it was not measured
    spread = [measured[column].to_numpy(float)[:, None] == np.array(codes) for column, codes in CODES.items()]
    spread += [hats(measured[column].to_numpy(float), *bounds) for column, bounds in RANGES.items()]
    missing = measured[[*CODES, *RANGES]].isna().to_numpy()
    return np.concatenate([*spread, missing], axis=1, dtype=np.float32)


def labels(rows: pd.DataFrame) -> npt.NDArray[np.int64]:
    """1: more than half of a vessel is narrowed."""
    return rows["disease"].to_numpy(np.int64)


def hats(value: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    """How near a value is to each of four equidistant points, (N, 4); zeros where it is missing."""
    place = ((value - low) / (high - low)).clip(0, 1) * (POINTS - 1)
    return np.nan_to_num((1 - np.abs(place[:, None] - np.arange(POINTS))).clip(0))


def build_model() -> nn.Module:
    """One weight for each feature."""
    return nn.Sequential(nn.Linear(56, 1))
