"""Tasks that are judged by sums over rows: one formula gives the exact metrics and those from noised sums.

N rows, C summands of a row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fedround.errors import ContractError
from fedround.learning.tasks.base import SMALLEST_LOSS, Float64, Kind, Scored
from fedround.learning.tasks.metrics import Margin, Metrics, margin
from fedround.statistics import LocalEvaluation, ModelSums, Release, total


class SummedScores(Kind):
    """A task whose metrics follow from `summands`; the first one is 1 for every row."""

    def statistic(self, evaluation: LocalEvaluation, public: Scored | None = None) -> ModelSums:
        """As `Kind`: sums, noised as counts are (a row's longest contribution has length 1 in the release's units)."""
        return ModelSums(noise_std=evaluation.noise_std, names=self.summed, longest=self.longest)

    def _exact(self, scored: Scored) -> Metrics:
        """As `Kind`. Raises ContractError without rows."""
        if len(scored) == 0:
            raise ContractError("metrics need rows; hold out some")
        found = self.of_sums(self.summands(scored).sum(axis=0), 0.0)
        if found is None:
            raise ContractError("these rows do not determine the metrics: hold out more, and not all alike")
        return found

    def metrics_of(self, told: Sequence[Release]) -> Metrics | None:
        """As `Kind`: the sums of all sites are added first, so that noise cancels."""
        if not told:
            return None
        everybody = sums_of(told)
        return self.of_sums(everybody.table, everybody.noise_std * self.longest)

    def margin_of(self, told: Sequence[Release]) -> Margin | None:
        """As `Kind`."""
        if not told:
            return None
        everybody = sums_of(told)
        return margin(self.of_sums, everybody.table, everybody.noise_std * self.longest)

    def mean_loss(self, told: Release) -> float | None:
        """As `Kind`: from `loss_of` the site's sums."""
        sum_C, noise_std = sums_of([told]).table, told.noise_std * self.longest
        if hidden(sum_C, noise_std):
            return None
        loss = self.loss_of(sum_C / sum_C[0])
        return float(np.clip(loss, SMALLEST_LOSS, 1.0)) if math.isfinite(loss) else None

    def loss_of(self, mean_C: Float64) -> float:
        """The mean loss on a scale from 0 to 1, from the means of summands: the second of them."""
        return float(mean_C[1])


def sums_of(told: Sequence[Release]) -> Release:
    """All sites' together. Raises ContractError for a release of another kind."""
    everybody = total(told)
    if not isinstance(everybody.statistic, ModelSums):
        raise ContractError(f"a model is judged by its sums, got a release of kind '{everybody.statistic.kind}'")
    return everybody


def hidden(sum_C: Float64, noise_std: float) -> bool:
    """Whether the noise hides how many rows there are."""
    return bool(sum_C[0] <= 3 * noise_std or sum_C[0] <= 0)
