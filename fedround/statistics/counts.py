"""Counts of records: one record is in one cell at most, and moves it by one."""

from __future__ import annotations

import numpy as np

from fedround.privacy.noise import NoiseSource, noised_counts
from fedround.statistics.base import Evidence, Float64, Int64, NoisedSum


class Counts(NoisedSum):
    """What every table of counts has in common."""

    def cells(self, evidence: Evidence) -> Int64:
        """The exact table. Every record of the site is in one cell at most."""
        raise NotImplementedError

    def possible(self, table: Float64, leeway: float) -> bool:
        """As `NoisedSum`: no cell has fewer than no records."""
        return bool(table.min() >= -leeway)

    def noised(self, evidence: Evidence, noise: NoiseSource) -> Float64:
        """As `NoisedSum`."""
        cells = self.cells(evidence)
        return cells.astype(np.float64) if self.noise_std == 0 else noised_counts(cells, self.noise_std, noise)
