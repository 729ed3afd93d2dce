"""What may leave a site besides an update: statistics, each a value that says what it is, whom it protects and what it costs.

A new statistic is one class of this package: what a record adds to it (`cells` of counts, `contributions` of other sums), its
shape, its scale, and the word by which a site's policy allows it. Add it to the union `Statistic`: then every question,
the ledger, the simulator and `verify` support it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Annotated, Self, get_args

import numpy as np
from pydantic import Field, model_validator

from fedround.errors import ContractError
from fedround.privacy.noise import NoiseSource
from fedround.privacy.spec import GaussianCounts, NoMechanism, capped
from fedround.statistics.base import LOUDEST, Evidence, Float64
from fedround.statistics.class_sums import ClassSums
from fedround.statistics.cox import CoxSums
from fedround.statistics.decisions import Bands, Decisions, Groups, Thresholds, Watched
from fedround.statistics.dyadic import DyadicCounts
from fedround.statistics.factors import Bounded, Factor, Is
from fedround.statistics.glm import GlmSums
from fedround.statistics.group_counts import GroupCounts
from fedround.statistics.hazard import HazardSums
from fedround.statistics.histogram import Histogram, Ranges
from fedround.statistics.importance import Importance, MadeOf
from fedround.statistics.levels import Levels
from fedround.statistics.model_sums import ModelSums
from fedround.statistics.moments import Moments
from fedround.statistics.present import Present
from fedround.statistics.scores import MAX_CLUSTERS, LocalEvaluation, Scores
from fedround.statistics.sketch import Prefixes, Sketch
from fedround.statistics.where import Between, OneOf
from fedround.values import Value

__all__ = [
    "LARGEST", "LOUDEST", "MAX_CLUSTERS", "WORDS", "Bands", "Between", "Bounded", "ClassSums", "CoxSums", "Decisions",
    "DyadicCounts", "Evidence", "Factor", "GlmSums", "GroupCounts", "Groups", "HazardSums", "Histogram", "Importance",
    "Is", "Judging", "Levels", "LocalEvaluation", "MadeOf", "ModelSums", "Moments", "OneOf", "Prefixes", "Present",
    "Ranges", "Release", "Scores", "Sketch", "Statistic", "Thresholds", "Watched", "release", "total"]

Statistic = Annotated[Scores | ModelSums | Histogram | GroupCounts | Decisions | Moments | Present | DyadicCounts | GlmSums
                      | HazardSums | CoxSums | Sketch | Prefixes | Importance | ClassSums, Field(discriminator="kind")]

Judging = Annotated[Scores | ModelSums, Field(discriminator="kind")]
"""What sites say of how good the base model is."""

WORDS: tuple[str, ...] = tuple(dict.fromkeys(one.word for one in get_args(get_args(Statistic)[0])))
"""By which a policy allows statistics to leave; "scores" for `ModelSums`, too: how good a model is."""

LARGEST = 1e10
"""No site has this many records, so a larger count is not valid."""

_LARGEST_SUM = 1e15
_FARTHEST = 12.0                # standard deviations: beyond lie 2**-105 of all draws
_EXACT = 1e-9


class Release(Value):
    """What left: the numbers of a statistic, and the mechanism that noised them. Counts may be negative.

    In units of the statistic's `scale`, so that one record moves them by a length of 1 at most, and a site with R records by
    R at most, whatever the statistic.
    """

    statistic: Statistic
    numbers: tuple[Annotated[float, Field(ge=-_LARGEST_SUM, le=_LARGEST_SUM)], ...]
    """The statistic's cells, row by row, in units of its `scale`."""
    mechanism: Annotated[GaussianCounts | NoMechanism, Field(discriminator="kind")]
    """What the ledger was charged for it."""

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        if len(self.numbers) != math.prod(self.statistic.shape):
            raise ValueError(f"a statistic of shape {self.statistic.shape} has {math.prod(self.statistic.shape)} numbers, "
                             f"got {len(self.numbers)}")
        return self

    @property
    def is_of_one_site(self) -> bool:
        """Whether a single site can have released this."""
        return self.noise_std <= LOUDEST and max(map(abs, self.numbers)) <= LARGEST

    @property
    def is_possible(self) -> bool:
        """Whether some records and some noise give these numbers; noise moves none by more than `_FARTHEST` of its standard
        deviations.
        """
        unit = self.statistic.scale
        leeway = _FARTHEST * self.noise_std * unit + _EXACT * max(unit, float(np.abs(self.table).max()))
        return self.statistic.possible(self.table, leeway)

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise on each of `numbers`; `statistic.scale` times as much is on each of `table`."""
        return self.mechanism.noise_std if isinstance(self.mechanism, GaussianCounts) else 0.0

    @functools.cached_property
    def table(self) -> Float64:
        """The sums in the statistic's shape, in records' own units."""
        return np.array(self.numbers, dtype=np.float64).reshape(self.statistic.shape) * self.statistic.scale


def release(statistic: Statistic, evidence: Evidence, noise: NoiseSource, *, rows_per_person: int | None = None) -> Release:
    """Compute a statistic on a site's rows and noise it by its mechanism. The exact cells go nowhere else.

    rows_per_person: how many rows of one person the evidence has at most; None: nobody looked.
    noise: must be secret and fresh; otherwise the release reveals the rows. Raises ContractError, quoting no value, if the
    rows do not have what the statistic counts.
    """
    noised = statistic.noised(evidence, noise)
    return Release(statistic=statistic, numbers=tuple(noised.ravel().tolist()),
                   mechanism=capped(statistic.mechanism, rows_per_person))


def total(releases: Sequence[Release]) -> Release:
    """All sites together: their numbers added up, and the noise of the sum.

    Raises ContractError unless there is one, and all are of one statistic.
    """
    if len({one.statistic for one in releases}) != 1:
        raise ContractError("a total is of releases of one statistic, and of one at least")
    noise_std = math.sqrt(math.fsum(one.noise_std ** 2 for one in releases))
    numbers = [math.fsum(cell) for cell in zip(*(one.numbers for one in releases), strict=True)]    # in any order the same
    return Release(statistic=releases[0].statistic, numbers=tuple(numbers),
                   mechanism=NoMechanism() if noise_std == 0 else GaussianCounts(noise_std=noise_std))
