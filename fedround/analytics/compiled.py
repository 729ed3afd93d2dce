"""Queries as one measurement: what sites are asked for, and the answers read in what they released."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from fedround.analytics.asked import Asked
from fedround.analytics.estimates import Table
from fedround.errors import ContractError
from fedround.statistics import Release, Statistic
from fedround.values import in_words

MOST = 64
"""Statistics in one plan."""


@dataclass(frozen=True)
class Compiled:
    """Queries, and what of the measurement each of them reads. Two queries that need the same pay for it once."""

    queries: tuple[Asked, ...]
    statistics: tuple[Statistic, ...]
    noise: tuple[float, ...]
    """That each query asks for."""
    places: tuple[tuple[int, ...], ...]
    """Which statistics each query reads."""

    def read(self, releases: Sequence[Release]) -> list[Table]:
        """The answers, from one site's releases or from all sites' totals."""
        return [table for query, places in zip(self.queries, self.places, strict=True)
                for table in query.read([releases[place] for place in places])]


def compiled(queries: Sequence[Asked], sites: int, records: int | None, default: float) -> Compiled:
    """What these queries ask of so many sites. records: in the smallest group of all sites together, if it is known, for
    errors that are wished for. default: the noise of a query that says nothing of it.

    Raises ContractError if an error cannot be promised, or if it is too much for one plan.
    """
    statistics: list[Statistic] = []
    places, noise = [], []
    for query in queries:
        noise.append(query.noise(sites, records, default))
        try:
            needed = query.statistics(noise[-1])
        except ValidationError as error:
            raise ContractError(f"{query.name}: {in_words(error)}") from None
        statistics += [one for one in needed if one not in statistics]
        places.append(tuple(statistics.index(one) for one in needed))
    if len(statistics) > MOST:
        raise ContractError(f"these questions need {len(statistics)} statistics, and one plan has room for {MOST}: ask some "
                            "in another run")
    return Compiled(tuple(queries), tuple(statistics), tuple(noise), tuple(places))
