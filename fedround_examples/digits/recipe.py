"""Which digit is it? Images of 8 by 8 pixels; see README.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import nn

from fedround.learning.tasks import Classify

if TYPE_CHECKING:
    import pandas as pd

NAME = "digits-mlp"
TASK = Classify(classes=10)


def features(rows: pd.DataFrame) -> npt.NDArray[np.float32]:
    """An image of one channel, (1, 8, 8), from -0.3 (paper) to 0.7 (ink)."""
    pixels = np.frombuffer(bytes.fromhex("".join(rows["image"])), np.uint8).reshape(len(rows), 1, 8, 8)
    return pixels.astype(np.float32) / 16 - np.float32(0.3)


def labels(rows: pd.DataFrame) -> npt.NDArray[np.int64]:
    """The digit."""
    return rows["digit"].to_numpy(np.int64)


def build_model() -> nn.Module:
    """One hidden layer of 32."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
