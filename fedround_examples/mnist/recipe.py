"""Which digit is it? Images of 28 by 28 pixels; see README.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import nn

from fedround.learning.tasks import Classify

if TYPE_CHECKING:
    import pandas as pd

NAME = "mnist-cnn"
TASK = Classify(classes=10)


def features(rows: pd.DataFrame) -> npt.NDArray[np.float32]:
    """An image of one channel, (1, 28, 28), from 0 (paper) to 1 (ink)."""
    pixels = np.frombuffer(bytes.fromhex("".join(rows["image"])), np.uint8).reshape(len(rows), 1, 28, 28)
    return pixels.astype(np.float32) / 255


def labels(rows: pd.DataFrame) -> npt.NDArray[np.int64]:
    """The digit."""
    return rows["digit"].to_numpy(np.int64)


def build_model() -> nn.Module:
    """Two convolutions and a hidden layer of 128: 421,642 numbers."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10))
