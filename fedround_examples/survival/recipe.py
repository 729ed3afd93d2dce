"""How long will this person live? From two proteins in the blood; see README.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fedround.learning.tasks import Survive

if TYPE_CHECKING:
    import pandas as pd

NAME = "flchain-hazards"
TASK = Survive(edges=tuple(365.0 * year for year in range(1, 13)))


def features(rows: pd.DataFrame) -> npt.NDArray[np.float32]:
    """Age, sex, the logarithms of three concentrations, a diagnosis; -1 to 1 between public bounds, 0 where one misses."""
    logs = {name: np.log(rows[name].to_numpy(float)) for name in ("kappa", "lambda", "creatinine")}
    columns = [(rows["age"].to_numpy(float), 50, 100), ((rows["sex"] == "M").to_numpy(float), 0, 1), (logs["kappa"], -2, 3),
               (logs["lambda"], -2, 3), (logs["creatinine"], -1, 2), (rows["mgus"].to_numpy(float), 0, 1)]
    scaled = [np.clip((column - low) / (high - low), 0, 1) * 2 - 1 for column, low, high in columns]
    return np.nan_to_num(np.stack(scaled, axis=1)).astype(np.float32)


def labels(rows: pd.DataFrame) -> dict[str, npt.NDArray[np.generic]]:
    """Days until death, or until the person was seen for the last time."""
    return {"time": rows["days"].to_numpy(np.float32), "event": rows["died"].to_numpy(np.int64)}


class Hazards(nn.Module):
    """One risk for each person, and one level for each year: proportional odds."""

    def __init__(self) -> None:
        super().__init__()
        self.risk, self.level = nn.Linear(6, 1, bias=False), nn.Parameter(torch.full((len(TASK.edges),), -3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A logit for each year."""
        return self.risk(x) + self.level  # type: ignore[no-any-return]


def build_model() -> nn.Module:
    """18 numbers."""
    return Hazards()
