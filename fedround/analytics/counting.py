"""Questions about how many records hold what: counts, histograms, gaps, and the commonest values, named or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from fedround.analytics import readings
from fedround.analytics.asked import Asked
from fedround.analytics.discover import LETTERS, MOST_NEXT, discovered
from fedround.analytics.estimates import WIDTH, Table
from fedround.statistics import GroupCounts, Histogram, Levels, Prefixes, Present, Ranges, Release, Sketch, Statistic
from fedround.statistics.levels import Level
from fedround.values import ColumnName

NO_GROUPS = "a sketch has no groups: ask for one group at a time, with a condition"


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


class Common(Asked):
    """Which of very many candidates are commonest, from a sketch: the candidates do not travel, and their number costs
    nothing.
    """

    ungrouped: ClassVar[str] = NO_GROUPS
    what: Literal["common"] = "common"
    of: ColumnName
    candidates: Annotated[tuple[Level, ...], Field(min_length=1, max_length=100_000)]
    most: Annotated[int, Field(ge=1, le=1000)] = 10
    width: Annotated[int, Field(ge=16, le=4096)] = 500
    depth: Annotated[int, Field(ge=1, le=8)] = 2

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

    ungrouped: ClassVar[str] = NO_GROUPS
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
