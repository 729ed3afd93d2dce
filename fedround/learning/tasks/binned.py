"""Tasks that are judged by counts of rows: by what is true of a row, and by the bin of its score.

T outcomes, B bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fedround.errors import ContractError
from fedround.learning.tasks.base import SMALLEST_LOSS, Float64, Kind, Scored
from fedround.learning.tasks.metrics import Margin, Metrics, margin
from fedround.statistics import LocalEvaluation, Release, Scores, total


class Binned(Kind):
    """A task whose metrics follow from one table of counts, (T, B)."""

    @property
    def outcomes(self) -> tuple[str, ...]:
        """What may be true of a row, in words."""
        return "no", "yes"

    def statistic(self, evaluation: LocalEvaluation, public: Scored | None = None) -> Scores:
        """As `Kind`. public: scores of public rows: then every bin holds equally many of these, as far as they are numbers.

        Bins of equal width lose most of the AUC of a model that is sure of itself (0.68 instead of 0.77 on the banks).
        """
        known_N = np.empty(0) if public is None else public["score"][np.isfinite(public["score"])]
        edges = tuple(float(edge) for edge in np.quantile(known_N, np.arange(1, evaluation.bins) / evaluation.bins)
                      ) if len(known_N) else ()
        return Scores(noise_std=evaluation.noise_std, bins=evaluation.bins, edges=edges, outcomes=self.outcomes)

    def mean_loss(self, told: Release) -> float | None:
        """As `Kind`: the share that `missed` says. Its noise is noise_std · sqrt(T B) / rows at most (standard deviation)."""
        scores, everybody = counts_of([told])
        missed, rows = self.missed(everybody.table, scores.middles)
        if few(rows, everybody.table, everybody.noise_std):
            return None
        return float(np.clip(missed / rows, SMALLEST_LOSS, 1.0))

    def missed(self, table_TB: Float64, middle_B: Float64) -> tuple[float, float]:
        """The sum over rows of one minus the chance given to what is true, and how many rows that is."""
        raise NotImplementedError

    def metrics_of(self, told: Sequence[Release]) -> Metrics | None:
        """As `Kind`, from noised counts.

        The counts are added first: noise of many sites cancels, and no single site is read. Each is then used as it is,
        negative or not, so that the noise does not bias the metrics.
        """
        if not told:
            return None
        _, everybody = counts_of(told)
        return self.of_counts(everybody.table, everybody.noise_std)

    def margin_of(self, told: Sequence[Release]) -> Margin | None:
        """As `Kind`."""
        if not told:
            return None
        _, everybody = counts_of(told)
        return margin(self.of_counts, everybody.table, everybody.noise_std)

    def of_counts(self, table_TB: Float64, noise_std: float) -> Metrics | None:
        """Metrics from counts; None if noise of this size on each hides them."""
        raise NotImplementedError


def few(rows: float, table: Float64, noise_std: float) -> bool:
    """Whether noise of this size on each count of the table hides how many rows there are."""
    return rows <= 3 * noise_std * math.sqrt(table.size)


def counts_of(told: Sequence[Release]) -> tuple[Scores, Release]:
    """What was asked, and the counts of all sites together. Raises ContractError for a release of another kind."""
    everybody = total(told)
    if not isinstance(everybody.statistic, Scores):
        raise ContractError(f"a model is judged by its scores, got a release of kind '{everybody.statistic.kind}'")
    return everybody.statistic, everybody
