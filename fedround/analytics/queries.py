"""What an analyst asks, without code: columns, public bounds and edges, groups, a filter, and how much noise.

A query is compiled to statistics, which travel in a plan to measure (`fedround.records.Measure`), and reads its answer in
what was released for them. It does not travel itself: what is paid for is the statistics, and any query that they can answer
is free. A new one is a class with `statistics`, `read` and `expected_error`, and a place in the union `Query`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from fedround.analytics import readings, survival
from fedround.analytics.components import components
from fedround.analytics.discover import LETTERS, MOST_NEXT, discovered
from fedround.analytics.estimates import WIDTH, Table
from fedround.analytics.linear import least_squares
from fedround.errors import ContractError
from fedround.privacy.spec import QUIETEST
from fedround.statistics import (
    Bounded,
    DyadicCounts,
    Factor,
    GroupCounts,
    Histogram,
    Levels,
    Moments,
    Prefixes,
    Present,
    Ranges,
    Release,
    Sketch,
    Statistic,
)
from fedround.statistics.base import LOUDEST, AskedNoise
from fedround.statistics.factors import check_factors
from fedround.statistics.grouped import By
from fedround.statistics.levels import Level
from fedround.statistics.where import Where
from fedround.values import ColumnName, Value

Share = Annotated[float, Field(ge=0, le=1)]
Columns = Annotated[tuple[Bounded, ...], Field(min_length=1, max_length=50)]


class Asked(Value):
    """What all queries have in common."""

    by: By = ()
    where: Where = ()
    noise_std: AskedNoise | None = None
    """Of the noise at each site, beside one record's longest contribution (`NoisedSum.noise_std`)."""
    error: Annotated[float, Field(gt=0, le=1e15)] | None = None
    """The half-width that all sites' answer may have, in the answer's own unit: the most noise that keeps it is taken."""

    @model_validator(mode="after")
    def _check_noise(self) -> Self:
        if self.noise_std is not None and self.error is not None:
            raise ValueError("give noise_std or error, not both")
        return self

    def statistics(self, noise_std: float) -> tuple[Statistic, ...]:
        """What sites are asked for."""
        raise NotImplementedError

    def read(self, releases: Sequence[Release]) -> tuple[Table, ...]:
        """The answer, from what was released for `statistics`, in their order."""
        return tuple(table for release in releases for table in readings.read(release))

    def expected_error(self, noise_std: float, sites: int, records: int | None) -> float | None:
        """The half-width (95 %) of all sites' answer, at most, if so many records are in its smallest group; None: not known
        beforehand.
        """
        return None

    def noise(self, sites: int, records: int | None, default: float) -> float:
        """The noise to ask for. Raises ContractError if the error that is wished for cannot be promised beforehand."""
        if self.error is None:
            return default if self.noise_std is None else self.noise_std
        alone = self.expected_error(1.0, sites, records)
        if alone is None:
            raise ContractError(f"{self.name}: this error cannot be promised beforehand: say of how many records the "
                                "smallest group is (--records), or give the noise")
        if (wished := self.error / alone) < QUIETEST:
            raise ContractError(f"{self.name}: an error of {self.error:g} needs noise below {QUIETEST:g}, which no site has")
        return min(wished, float(LOUDEST))

    @property
    def name(self) -> str:
        """Of the question, for messages."""
        return str(getattr(self, "what", ""))


class _Counted(Asked):
    """What is read off counts."""

    def expected_error(self, noise_std: float, sites: int, records: int | None) -> float | None:
        """In records."""
        return WIDTH * noise_std * math.sqrt(sites)


class Count(_Counted):
    """How many records there are, by group."""

    what: Literal["count"] = "count"

    def statistics(self, noise_std: float) -> tuple[Statistic, ...]:
        """As `Asked`."""
        return (GroupCounts(by=self.by, where=self.where, noise_std=noise_std),)


class HistogramOf(_Counted):
    """How a column lies between public edges, by group."""

    what: Literal["histogram"] = "histogram"
    of: Ranges

    def statistics(self, noise_std: float) -> tuple[Statistic, ...]:
        """As `Asked`."""
        if not (self.by or self.where):
            return (Histogram(column=self.of.column, edges=self.of.edges, noise_std=noise_std),)
        return (GroupCounts(by=(*self.by, self.of), where=self.where, noise_std=noise_std),)


class Top(_Counted):
    """The commonest of many named values of a column, commonest first."""

    what: Literal["top"] = "top"
    of: Levels
    most: Annotated[int, Field(ge=1, le=1000)] = 10

    def statistics(self, noise_std: float) -> tuple[Statistic, ...]:
        """As `Asked`."""
        return (GroupCounts(by=(self.of,), where=self.where, noise_std=noise_std),)

    def read(self, releases: Sequence[Release]) -> tuple[Table, ...]:
        """As `Asked`."""
        table = readings.counts(releases[0])
        best = sorted(table.estimates[:-1], key=lambda one: -one.value)[:self.most]
        return (Table(f"the commonest values of {self.of.column}", table.head, tuple(best), "bars"),)


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


class Missing(Asked):
    """The share of records that hold nothing in a column, by group."""

    what: Literal["missing"] = "missing"
    of: Annotated[tuple[ColumnName, ...], Field(min_length=1, max_length=200)]

    def statistics(self, noise_std: float) -> tuple[Statistic, ...]:
        """As `Asked`."""
        return (Present(of=self.of, by=self.by, where=self.where, noise_std=noise_std),)

    def expected_error(self, noise_std: float, sites: int, records: int | None) -> float | None:
        """Of a share."""
        if records is None:
            return None
        return WIDTH * noise_std * math.sqrt(2 * sites * (1 + len(self.of))) / records


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


class Common(Asked):
    """Which of very many candidates are commonest, from a sketch: the candidates do not travel, and their number costs
    nothing.
    """

    what: Literal["common"] = "common"
    of: ColumnName
    candidates: Annotated[tuple[Level, ...], Field(min_length=1, max_length=100_000)]
    most: Annotated[int, Field(ge=1, le=1000)] = 10
    width: Annotated[int, Field(ge=16, le=4096)] = 500
    depth: Annotated[int, Field(ge=1, le=8)] = 2

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        if self.by:
            raise ValueError("a sketch has no groups: ask for one group at a time, with a condition")
        return self

    def statistics(self, noise_std: float) -> tuple[Statistic, ...]:
        """As `Asked`."""
        return (Sketch(of=self.of, width=self.width, depth=self.depth, where=self.where, noise_std=noise_std),)

    def read(self, releases: Sequence[Release]) -> tuple[Table, ...]:
        """As `Asked`."""
        (release,) = releases
        return (readings.common(release, self.candidates, self.most),) if isinstance(release.statistic, Sketch) else ()

    def expected_error(self, noise_std: float, sites: int, records: int | None) -> float | None:
        """In records, for the noise alone: other values in the same buckets come on top."""
        return WIDTH * noise_std * math.sqrt(sites)


class Discover(Asked):
    """The commonest texts of a column when nobody knows which there are: sketches of the texts' beginnings, in one round."""

    what: Literal["discover"] = "discover"
    of: ColumnName
    longest: Annotated[int, Field(ge=1, le=32)] = 8
    """Characters that are told apart."""
    step: Annotated[int, Field(ge=1, le=3)] = 2
    """By how many characters a sketch knows more than the one before. More sketches cost more, and see rarer texts."""
    letters: Annotated[str, StringConstraints(min_length=1, max_length=200)] = LETTERS
    """Public: of which characters texts are made; others are not found."""
    most: Annotated[int, Field(ge=1, le=64)] = 20
    width: Annotated[int, Field(ge=16, le=4096)] = 250
    depth: Annotated[int, Field(ge=2, le=8)] = 4

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.by:
            raise ValueError("a sketch has no groups: ask for one group at a time, with a condition")
        if len(set(self.letters)) < len(self.letters):
            raise ValueError("a letter is named twice")
        if len(set(self.letters)) ** self.step > MOST_NEXT:
            raise ValueError(f"{len(self.letters)} letters give {len(self.letters) ** self.step} ways to go on in steps of "
                             f"{self.step}, and {MOST_NEXT} are tried: name fewer letters, or a smaller step")
        return self

    def statistics(self, noise_std: float) -> tuple[Statistic, ...]:
        """As `Asked`."""
        return tuple(Prefixes(of=self.of, length=length, width=self.width, depth=self.depth, where=self.where,
                              noise_std=noise_std) for length in (*range(self.step, self.longest, self.step), self.longest))

    def read(self, releases: Sequence[Release]) -> tuple[Table, ...]:
        """As `Asked`."""
        return (discovered(releases, self.letters, self.most),)

    def expected_error(self, noise_std: float, sites: int, records: int | None) -> float | None:
        """In records, for the noise alone: other texts in the same buckets come on top."""
        return WIDTH * noise_std * math.sqrt(sites)


class Components(Asked):
    """Principal components of columns' correlations."""

    what: Literal["components"] = "components"
    of: Annotated[tuple[Bounded, ...], Field(min_length=2, max_length=50)]
    most: Annotated[int, Field(ge=1, le=50)] = 2

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        if self.by:
            raise ValueError("components have no groups: ask for one group at a time, with a condition")
        return self

    def statistics(self, noise_std: float) -> tuple[Statistic, ...]:
        """As `Asked`."""
        return (Moments(of=self.of, degree="products", where=self.where, noise_std=noise_std),)

    def read(self, releases: Sequence[Release]) -> tuple[Table, ...]:
        """As `Asked`."""
        statistic = releases[0].statistic
        return components(releases[0], statistic, self.most) if isinstance(statistic, Moments) else ()


class Linear(Asked):
    """Least squares of one column on others: one round."""

    what: Literal["linear"] = "linear"
    outcome: Factor
    of: Annotated[tuple[Factor, ...], Field(min_length=1, max_length=49)]
    ridge: Annotated[float, Field(ge=0, le=1e6)] = 0.0

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        if self.by:
            raise ValueError("a regression has no groups: give them as columns, or ask for one group with a condition")
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


Query = Annotated[Count | HistogramOf | Top | Mean | Quantiles | Missing | Correlations | Table1 | Linear | Survival | Common
                  | Discover | Components,
                  Field(discriminator="what")]


class Questions(Value):
    """A file of questions: one measurement that asks all of them together, and is charged once."""

    ask: Annotated[tuple[Query, ...], Field(min_length=1, max_length=64)]

