"""Questions whose answer is a small model: least squares, principal components, survival curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from fedround.analytics import survival
from fedround.analytics.asked import Asked
from fedround.analytics.components import components
from fedround.analytics.estimates import WIDTH, Table
from fedround.analytics.linear import least_squares
from fedround.statistics import Bounded, Factor, GroupCounts, Levels, Moments, Ranges, Release, Statistic
from fedround.statistics.factors import check_factors


class Components(Asked):
    """Principal components of columns' correlations."""

    ungrouped: ClassVar[str] = "components have no groups: ask for one group at a time, with a condition"
    what: Literal["components"] = "components"
    of: Annotated[tuple[Bounded, ...], Field(min_length=2, max_length=50)]
    most: Annotated[int, Field(ge=1, le=50)] = 2

    def statistics(self, noise_std: float) -> tuple[Statistic, ...]:
        """As `Asked`."""
        return (Moments(of=self.of, degree="products", where=self.where, noise_std=noise_std),)

    def read(self, releases: Sequence[Release]) -> tuple[Table, ...]:
        """As `Asked`."""
        statistic = releases[0].statistic
        return components(releases[0], statistic, self.most) if isinstance(statistic, Moments) else ()


class Linear(Asked):
    """Least squares of one column on others: one round."""

    ungrouped: ClassVar[str] = "a regression has no groups: give them as columns, or ask for one group with a condition"
    what: Literal["linear"] = "linear"
    outcome: Factor
    of: Annotated[tuple[Factor, ...], Field(min_length=1, max_length=49)]
    ridge: Annotated[float, Field(ge=0, le=1e6)] = 0.0

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        check_factors([self.outcome.column], self.of)
        return self

    def statistics(self, noise_std: float) -> tuple[Statistic, ...]:
        """As `Asked`."""
        return (Moments(of=(*self.of, self.outcome), degree="products", where=self.where, noise_std=noise_std),)

    def read(self, releases: Sequence[Release]) -> tuple[Table, ...]:
        """As `Asked`."""
        statistic = releases[0].statistic
        return (least_squares(releases[0], statistic, self.outcome, self.ridge),) if isinstance(statistic, Moments) else ()


class Survival(Asked):
    """Survival curves (Kaplan-Meier) and hazards by group, and with one column of groups the log-rank test."""

    what: Literal["survival"] = "survival"
    time: Ranges
    event: Levels
    """What an event is: one of these values. All other records are censored at their time."""

    @model_validator(mode="after")
    def _check_edges(self) -> Self:
        if len(self.time.edges) < 2 or len(self.event.values) != 1:
            raise ValueError("a curve needs two edges of time at least, and one value that is an event")
        return self

    def statistics(self, noise_std: float) -> tuple[Statistic, ...]:
        """As `Asked`."""
        return (GroupCounts(by=(*self.by, self.event, self.time), where=self.where, noise_std=noise_std),)

    def read(self, releases: Sequence[Release]) -> tuple[Table, ...]:
        """As `Asked`."""
        (release,) = releases
        test = (survival.log_rank(release),) if len(self.by) == 1 else ()
        return survival.curves(release), survival.hazards(release), *test

    def expected_error(self, noise_std: float, sites: int, records: int | None) -> float | None:
        """Of a share of the group, while most of it is at risk."""
        return None if records is None else WIDTH * noise_std * math.sqrt(sites * len(self.time.edges)) / records
