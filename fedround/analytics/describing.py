"""Questions about how large numbers are: means, spreads, quantiles, correlations, and the first table of a study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedround.analytics import readings
from fedround.analytics.asked import Asked
from fedround.analytics.estimates import WIDTH, Table
from fedround.statistics import Bounded, DyadicCounts, GroupCounts, Levels, Moments, Release, Statistic

Share = Annotated[float, Field(ge=0, le=1)]
Columns = Annotated[tuple[Bounded, ...], Field(min_length=1, max_length=50)]


class Mean(Asked):
    """Means and, with `spread`, standard deviations of columns between public bounds, by group."""

    what: Literal["mean"] = "mean"
    of: Columns
    spread: bool = False

    def statistics(self, noise_std: float) -> tuple[Statistic, ...]:
        """As `Asked`."""
        return (Moments(of=self.of, degree=2 if self.spread else 1, by=self.by, where=self.where, noise_std=noise_std),)

    def expected_error(self, noise_std: float, sites: int, records: int | None) -> float | None:
        """Of the mean of the column with the widest bounds, wherever it lies in them."""
        if records is None:
            return None
        scale = self.statistics(noise_std)[0].scale
        return WIDTH * noise_std * scale * math.sqrt(2 * sites) * max(one.half for one in self.of) / records


class Quantiles(Asked):
    """Values of a column below which given shares of the records lie, by group."""

    what: Literal["quantiles"] = "quantiles"
    of: Bounded
    at: Annotated[tuple[Share, ...], Field(min_length=1, max_length=99)] = readings.QUARTILES
    depth: Annotated[int, Field(ge=1, le=12)] = 8
    """The bounds are cut into 2^depth equal parts."""

    def statistics(self, noise_std: float) -> tuple[Statistic, ...]:
        """As `Asked`."""
        return (DyadicCounts(of=self.of, depth=self.depth, by=self.by, where=self.where, noise_std=noise_std),)

    def read(self, releases: Sequence[Release]) -> tuple[Table, ...]:
        """As `Asked`."""
        asked = self.statistics(0.0)[0]
        return (readings.quantiles_of(releases[0], asked, self.at),) if isinstance(asked, DyadicCounts) else ()

    def expected_error(self, noise_std: float, sites: int, records: int | None) -> float | None:
        """Of the share below, of a sum of at most `depth` nodes."""
        if records is None:
            return None
        return WIDTH * noise_std * math.sqrt(sites) * self.depth / records


class Correlations(Asked):
    """Of each two columns (Pearson), and their means, by group."""

    what: Literal["correlations"] = "correlations"
    of: Annotated[tuple[Bounded, ...], Field(min_length=2, max_length=50)]

    def statistics(self, noise_std: float) -> tuple[Statistic, ...]:
        """As `Asked`."""
        return (Moments(of=self.of, degree="products", by=self.by, where=self.where, noise_std=noise_std),)


class Table1(Asked):
    """The first table of a study: means and spreads of numbers, counts and shares of values, by group."""

    what: Literal["table1"] = "table1"
    numbers: Annotated[tuple[Bounded, ...], Field(max_length=50)] = ()
    levels: Annotated[tuple[Levels, ...], Field(max_length=50)] = ()

    @model_validator(mode="after")
    def _check_some(self) -> Self:
        if not (self.numbers or self.levels):
            raise ValueError("a table needs columns: numbers with bounds, or levels with values")
        return self

    def statistics(self, noise_std: float) -> tuple[Statistic, ...]:
        """As `Asked`."""
        of_numbers = (Moments(of=self.numbers, degree=2, by=self.by, where=self.where, noise_std=noise_std),)
        return (*(of_numbers if self.numbers else ()),
                *(GroupCounts(by=(*self.by, one), where=self.where, noise_std=noise_std) for one in self.levels))

    def read(self, releases: Sequence[Release]) -> tuple[Table, ...]:
        """As `Asked`."""
        return tuple(table for release in releases for table in (
            *readings.read(release), *((readings.shares(release),) if isinstance(release.statistic, GroupCounts) else ())))
