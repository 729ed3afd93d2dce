"""How a model's scores lie on rows that a site holds out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, StringConstraints, model_validator

from fedround.errors import ContractError
from fedround.privacy.entries import Rows
from fedround.statistics.base import AskedNoise, Axis, Evidence, Float64, Int64
from fedround.statistics.counts import Counts
from fedround.values import Value

Share = Annotated[float, Field(ge=0, le=1)]


MAX_CLUSTERS = 20


class LocalEvaluation(Value):
    """Sites score the base model on their own validation rows; a histogram of scores leaves, noised (Gaussian).

    clusters: how many models a run trains at once. Each site scores all of them, each in a release of its own, and trains
    the one that is best by these (`fedround.learning.clusters`). It cannot change within a run.
    """

    bins: Annotated[int, Field(ge=2, le=1000)] = 10
    noise_std: AskedNoise = 10.0
    clusters: Annotated[int, Field(ge=1, le=MAX_CLUSTERS)] = 1


def one_each(told: Mapping[str, npt.NDArray[Any]]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Each row's score, and what is true of it, (N,) both: so that a row is in one cell, whoever computed them.

    Raises ContractError for other arrays.
    """
    chance_N, truth_N = told["score"], told["truth"]
    if chance_N.ndim != 1 or chance_N.shape != truth_N.shape:
        raise ContractError(f"scores are of shape {chance_N.shape}, and what is true of them of {truth_N.shape}: a row has "
                            "one of each")
    return chance_N, truth_N


class Scores(Counts):
    """The base model's scores in `bins` bins, by truth: row 0 of the table counts what is not true, row 1 what is; or
    one row for each of the `outcomes`.

    The task defines what is scored and what counts as true (`fedround.learning.tasks`). A bin holds the scores from its lower
    edge up to, and without, its upper one. edges: the inner edges, ascending and public; none: bins of equal width.
    """

    word: ClassVar[str] = "scores"
    in_words: ClassVar[str] = "counts of scores"
    rows: ClassVar[Rows] = "validation"
    reads_model: ClassVar[bool] = True
    kind: Literal["scores"] = "scores"
    bins: Annotated[int, Field(ge=2, le=1000)]
    edges: tuple[Share, ...] = ()
    outcomes: Annotated[tuple[Annotated[str, StringConstraints(min_length=1, max_length=60)], ...],
                        Field(min_length=2, max_length=401)] = ("no", "yes")
    """What may be true of a row, in words: the rows of the table."""

    @model_validator(mode="after")
    def _check_edges(self) -> Self:
        if self.edges and len(self.edges) != self.bins - 1:
            raise ValueError(f"{self.bins} bins have {self.bins - 1} edges between them")
        if any(later < earlier for earlier, later in itertools.pairwise(self.edges)):
            raise ValueError("edges must ascend")
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """(truth, bin)."""
        return (len(self.outcomes), self.bins)

    @property
    def inner(self) -> Float64:
        """The inner edges, (B - 1,)."""
        return np.array(self.edges) if self.edges else np.arange(1, self.bins) / self.bins

    @property
    def middles(self) -> Float64:
        """Of the bins, (B,)."""
        edges = np.array([0.0, *self.inner, 1.0])
        middle_B: Float64 = (edges[1:] + edges[:-1]) / 2
        return middle_B

    @property
    def axes(self) -> tuple[Axis, ...]:
        """As `Counts`."""
        between = itertools.pairwise([0.0, *self.inner.tolist(), 1.0])
        return Axis("true", self.outcomes), Axis("score", tuple(f"{low:.3g} to {high:.3g}" for low, high in between))

    def cells(self, evidence: Evidence) -> Int64:
        """As `Counts`."""
        chance_N, truth_N = one_each(evidence.scores())
        bin_N = np.searchsorted(self.inner, chance_N, side="right")
        return np.stack([np.bincount(bin_N[truth_N == truth], minlength=self.bins) for truth in range(len(self.outcomes))])
