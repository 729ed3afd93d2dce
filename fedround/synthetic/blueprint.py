"""What synthetic rows look like, by public words alone: columns, their cells, and which pairs of columns are asked for.

N rows.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BeforeValidator, Field, model_validator

from fedround.learning.columns import Category, Date, Numeric, Truth
from fedround.statistics import GroupCounts, Levels, Ranges, Statistic
from fedround.statistics.base import Float64, Int64
from fedround.values import ColumnName, Value

MOST = 64
"""Tables in one plan."""


def _tuples(found: object) -> object:
    return tuple(map(_tuples, found)) if isinstance(found, list) else found


class Blueprint(Value):
    """The columns of synthetic rows, in order, and the tables that are asked for them.

    A number is cut to equal cells between its public bounds, on its own scale; what lies outside is in the nearer cell. A
    category has a cell for each listed value; dates are cut as whole numbers of days are. The last cell of a column is
    "nothing that is listed": a gap, and for a category another value, too. Synthetic rows have a gap there.
    """

    columns: Annotated[
        tuple[Annotated[Numeric | Truth | Date | Category, Field(discriminator="kind")], ...], BeforeValidator(_tuples),
        Field(min_length=2, max_length=60)]
    """As a recipe's COLUMNS say them, and what is learnt, as one more column. With `missing = false` no row has a gap."""
    cells: Annotated[int, Field(ge=2, le=100)] = 8
    """Into which a column of numbers or dates is cut."""
    whole: Annotated[tuple[ColumnName, ...], BeforeValidator(_tuples)] = ()
    """Columns of numbers that are whole."""
    pairs: Annotated[
        Literal["all", "chain", "star"] | tuple[tuple[ColumnName, ColumnName], ...], BeforeValidator(_tuples)] = "star"
    """Of which two-way tables are asked: all, neighbours, each column with the last one, or a list. Each costs."""

    @model_validator(mode="after")
    def _check(self) -> Blueprint:
        names = [one.column for one in self.columns]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"column '{twice}' is said twice")
        numbers = {one.column for one in self.columns if isinstance(one, Numeric)}
        if strange := sorted(set(self.whole) - numbers):
            raise ValueError(f"'whole' names '{strange[0]}', which is no column of numbers")
        if isinstance(self.pairs, tuple):
            if strange := sorted({name for pair in self.pairs for name in pair} - set(names)):
                raise ValueError(f"'pairs' name '{strange[0]}', which is no column")
            if any(one == other for one, other in self.pairs):
                raise ValueError("a pair is of two columns")
        if (tables := len(names) + len(self.edges)) > MOST:
            raise ValueError(f"{tables} tables are asked for, and one plan has room for {MOST}: name fewer columns or pairs")
        cut = (one for one in self.columns if isinstance(one, Numeric | Date))
        if small := next((one for one in cut if len(self.bounds(one)) < 3), None):
            raise ValueError(f"column '{small.column}' has one whole number at most between its bounds")
        return self

    @property
    def width(self) -> int:
        """Columns of the rows that are drawn."""
        return len(self.columns)

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """The pairs of columns, by place, each once, the smaller place first."""
        count = len(self.columns)
        match self.pairs:
            case "all":
                return tuple(itertools.combinations(range(count), 2))
            case "chain":
                return tuple(itertools.pairwise(range(count)))
            case "star":
                return tuple((one, count - 1) for one in range(count - 1))
        place = {one.column: number for number, one in enumerate(self.columns)}
        return tuple(sorted({(min(places), max(places)) for places in ((place[a], place[b]) for a, b in self.pairs)}))

    def statistics(self, noise_std: float) -> tuple[Statistic, ...]:
        """What sites are asked for: a table of each column, then one of each pair of `edges`, all with this noise.

        Raises pydantic's ValidationError if a table is larger than a plan allows.
        """
        groups = [self._group(one) for one in self.columns]
        return tuple(GroupCounts(by=tuple(groups[place] for place in places), noise_std=noise_std)
                     for places in (*((place,) for place in range(len(groups))), *self.edges))

    def bounds(self, column: Numeric | Date) -> Float64:
        """Between the cells of a column of numbers, its own bounds first and last; of whole numbers and days, the one that
        begins each cell, and last the one after all.
        """
        span, at = column.high - column.low, np.linspace(0, 1, self.cells + 1)
        logarithmic = isinstance(column, Numeric) and column.scale == "log"
        edges = column.low + (np.expm1(at * np.log1p(span)) if logarithmic else span * at)
        if not self._is_whole(column):
            return np.asarray(edges, dtype=np.float64)
        return np.unique(np.append(np.ceil(edges[:-1]), np.floor(column.high) + 1))

    def _is_whole(self, column: Numeric | Date) -> bool:
        return isinstance(column, Date) or column.column in self.whole

    def _group(self, column: Numeric | Truth | Date | Category) -> Levels | Ranges:
        if isinstance(column, Numeric | Date):
            edges = tuple(self.bounds(column)[1:-1].tolist())
            return Ranges(column=column.column, edges=edges, days=isinstance(column, Date))
        values = (0, 1) if isinstance(column, Truth) else column.values
        return Levels(column=column.column, values=tuple(int(one) if isinstance(one, bool) else one for one in values))

    def rows(self, cell_NC: Int64, draw: np.random.Generator) -> pd.DataFrame:
        """Rows with a value in each of these cells: of numbers, any of the cell, equally likely."""
        return pd.DataFrame({one.column: self._values(one, cell_NC[:, place], draw)
                             for place, one in enumerate(self.columns)})

    def _values(self, column: Numeric | Truth | Date | Category, cell_N: Int64, draw: np.random.Generator) -> Any:
        if isinstance(column, Numeric):
            return self._numbers(column, cell_N, draw)
        if isinstance(column, Date):
            day_N = self._numbers(column, cell_N, draw)
            return pd.to_datetime(day_N.astype("float64"), unit="D").astype("datetime64[us]")
        listed: tuple[Any, ...] = (False, True) if isinstance(column, Truth) else column.values
        kind = {bool: "boolean", int: "Int64", str: "object"}[type(listed[0])]
        return pd.Series([*listed, None], dtype=kind).take(cell_N).reset_index(drop=True)

    def _numbers(self, column: Numeric | Date, cell_N: Int64, draw: np.random.Generator) -> Any:
        bounds, gap_N = self.bounds(column), cell_N == len(self.bounds(column)) - 1
        within_N = np.where(gap_N, 0, cell_N)
        low_N, high_N = bounds[within_N], bounds[within_N + 1]
        value_N: npt.NDArray[np.float64] = low_N + draw.random(len(cell_N)) * (high_N - low_N)
        if self._is_whole(column):
            return pd.Series(np.floor(np.minimum(value_N, high_N - 1 / 2)).astype(np.int64), dtype="Int64").mask(gap_N)
        return pd.Series(np.where(gap_N, np.nan, value_N))
