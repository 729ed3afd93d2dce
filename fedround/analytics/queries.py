"""What an analyst asks, without code: columns, public bounds and edges, groups, a filter, and how much noise.

A query is compiled to statistics, which travel in a plan to measure (`fedround.records.Measure`), and reads its answer in
what was released for them. It does not travel itself: what is paid for is the statistics, and any query that they can answer
is free. A new one is an `Asked` with `statistics`, `read` and `expected_error` (`counting`, `describing`, `fitting`), and a
place in the union `Query`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fedround.analytics.counting import Common, Count, Discover, HistogramOf, Missing, Top
from fedround.analytics.describing import Correlations, Mean, Quantiles, Table1
from fedround.analytics.fitting import Components, Linear, Survival
from fedround.values import Value

Query = Annotated[Count | HistogramOf | Top | Mean | Quantiles | Missing | Correlations | Table1 | Linear | Survival | Common
                  | Discover | Components,
                  Field(discriminator="what")]


class Questions(Value):
    """A file of questions: one measurement that asks all of them together, and is charged once."""

    ask: Annotated[tuple[Query, ...], Field(min_length=1, max_length=64)]
