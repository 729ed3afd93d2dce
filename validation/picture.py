"""What the columns of rows hold: kinds, ranges, shares of gaps. Exact numbers of rows, so whoever asks keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from validation.tables import Table


@dataclass(frozen=True)
class Column:
    """One column."""

    name: str
    kind: str
    missing: float
    """The share of rows that have no value."""
    low: str
    high: str
    """The smallest and the largest number or date; empty for texts."""


@dataclass(frozen=True)
class Picture:
    """The columns of what a path of rows names."""

    rows: int
    skipped: int
    """Lines of CSV files that were skipped: they have more or fewer values than the first line has names."""
    columns: tuple[Column, ...]
    hints: tuple[str, ...]
    """What is odd about columns of texts, and what to do about it."""


def picture(path: Path) -> Picture:
    """Look at all rows, a part at a time. Raises as `tables.Table`."""
    import pyarrow.compute as pc

    table = Table(path)
    missing = dict.fromkeys(table.kinds, 0)
    seen: dict[str, list[Any]] = {name: [] for name in table.kinds}
    for part in table.batches():
        for name, column in zip(part.column_names, part.columns, strict=True):
            gone = column.is_null(nan_is_null=True)
            missing[name] += pc.sum(gone).as_py() or 0
            if table.kinds[name] in {"whole", "fraction", "date"}:
                ends = pc.min_max(column.filter(pc.invert(gone))).as_py()
                seen[name] += [end for end in ends.values() if end is not None]
    return Picture(table.rows, table.skipped, tuple(
        Column(name, kind, missing[name] / table.rows, *((_said(min(seen[name])), _said(max(seen[name]))) if seen[name]
                                                         else ("", "")))
        for name, kind in table.kinds.items()), table.hints)


def read_back(told: dict[str, Any]) -> Picture:
    """What `dataclasses.asdict` made of one."""
    return Picture(told["rows"], told["skipped"], tuple(Column(**column) for column in told["columns"]), tuple(told["hints"]))


def _said(value: Any) -> str:
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) and abs(value) < 10 ** 9 else f"{value:.4g}"
    return str(value).removesuffix(" 00:00:00")
