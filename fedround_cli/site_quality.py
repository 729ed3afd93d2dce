"""The table of `fedround site check`: labels that look wrong, and values that lie far out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedround.spoken import how_many
from fedround_cli.output import out

if TYPE_CHECKING:
    from site_workers.quality import Quality

_MOST = 8


def show(found: Quality) -> None:
    """Labels, then the columns with most values far out. Only for the operator of the site."""
    from rich.table import Table

    told = found.labels
    table = Table("of these rows", title="your rows, for you alone")
    for name in ("rows", "worth a look"):
        table.add_column(name, justify="right")
    for label in () if told is None else sorted(told.labels, key=lambda one: (-(one.doubtful or 0), one.label))[:_MOST]:
        table.add_row(f"label {label.label}", f"{label.rows:,}",
                      "too few to say" if label.doubtful is None else f"{label.doubtful:,} contradicted")
    for column in [one for one in found.columns if one.outside][:_MOST]:
        table.add_row(column.column, f"{column.rows:,}",
                      f"{column.outside:,} beyond {_number(column.low)} to {_number(column.high)}")
    out.print(table)
    if told is not None and told.recognised is not None:
        out.say("contradicted: a label that the other rows make unlikely, by a linear model that recognises {} of the "
                "labels{}. It may be typed wrong; the less is recognised, the more of these are right",
                f"{told.recognised:.0%}", "" if told.looked_at == sum(one.rows for one in told.labels) else
                f"; looked at: {how_many(told.looked_at, 'row')}, drawn by chance")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
