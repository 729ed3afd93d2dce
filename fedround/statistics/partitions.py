"""Rows told apart by one of their columns: the rows of one week, say. Only these are used, and only these pay.

A row's partition is a function of the row itself, so each row is in one at most, at every site and whatever other rows there
are: parallel composition (McSherry 2009, theorem 4). A row whose column changes is another row, in another partition. The
question names the partition. If sites chose it ("the newest"), a single row could move it.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import re
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, StringConstraints

from fedround.values import ColumnName, Value

By = Literal["day", "week", "month", "value"]
Bools = npt.NDArray[np.bool_]
_LONGEST = 15
"""Digits of a whole number that it keeps as a fraction."""
_NAME = r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?"
PartitionName = Annotated[str, StringConstraints(pattern=f"^{_NAME}$")]


class Partitions(Value):
    """How rows are told apart: by the day, the ISO week or the month of a column of dates, or by a column's value."""

    column: ColumnName
    by: By = "week"

    def name_of(self, value: object) -> str | None:
        """The partition of a row with this value: "2026-11-29", "2026-w48", "2026-11", or the value in lower case. None: it
        is in none, and never counted where partitions are.

        A whole number has one name, however it is written: 7, 7.0, "007". Which of them a file gives depends on other rows:
        one that lacks the number makes all of them fractions. So a number too long to be kept as a fraction has none. Nor has
        a value that no plan can name (`PartitionName`): "Göttingen", 0.5.
        """
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            return None
        text = str(int(value) if isinstance(value, float) and value.is_integer() else value).lower()
        if text.isascii() and text.isdecimal():
            text = text.lstrip("0") or "0"
            if len(text) > _LONGEST:
                return None
        if self.by == "value":
            return text if re.fullmatch(_NAME, text) else None
        try:
            day = datetime.date.fromisoformat(text[:10])
        except ValueError:
            return None
        year, week, _ = day.isocalendar()
        return {"day": f"{day:%Y-%m-%d}", "week": f"{year}-w{week:02d}", "month": f"{day:%Y-%m}"}[self.by]

    def before(self, day: datetime.date) -> str:
        """The last partition that was over on this day. Raises ValueError for partitions by value."""
        if self.by == "value":
            raise ValueError("partitions by value have no order: name one")
        first = {"day": day, "week": day - datetime.timedelta(days=day.weekday()), "month": day.replace(day=1)}[self.by]
        return self.name_of(first - datetime.timedelta(days=1)) or ""

    @property
    def scheme(self) -> str:
        """What all partitions that are told apart in this way have in common in a ledger."""
        return hashlib.sha256(f"{self.by}:{self.column}".encode()).hexdigest()[:8]

    @property
    def in_words(self) -> str:
        """For messages."""
        return f"column '{self.column}'" if self.by == "value" else f"the {self.by} in column '{self.column}'"


class Recurring(Partitions):
    """[partitions] of a federation file: a campaign trains on the rows of one partition, and only these pay."""

    wait_days: Annotated[int, Field(ge=0, le=366)] = 0
    """How many days after its end a partition is complete. A campaign that names none takes the last that is complete."""

    continues: bool = False
    """Whether a scheduled run begins with the last model of the scheduled run before it; otherwise with an untrained one."""

    def complete(self, today: datetime.date) -> str:
        """The last partition that is complete. Raises ValueError for partitions by value."""
        return self.before(today - datetime.timedelta(days=self.wait_days))

    def named(self, name: str) -> Partition:
        """The partition with this name."""
        return Partition(column=self.column, by=self.by, name=name)


class Partition(Partitions):
    """One of them."""

    name: PartitionName

    @property
    def in_ledger(self) -> str:
        """Its name in a site's ledger; partitions by another column, or by month instead of week, have other endings."""
        return f"{self.name}-{self.scheme}"

    def holds(self, value_N: npt.NDArray[Any]) -> Bools:
        """Which rows are in it, (N,)."""
        return np.array([self.name_of(value) == self.name for value in value_N.tolist()], dtype=bool)


def of_one_kind(one: Partitions | None, other: Partitions | None) -> bool:
    """Whether both tell rows apart in the same way, or neither does."""
    return (None if one is None else (one.column, one.by)) == (None if other is None else (other.column, other.by))
