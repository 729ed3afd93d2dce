"""The tables at the end of `fedround site check`: what the rows hold, and what the recipe makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedround.spoken import how_many
from fedround_cli.output import out

if TYPE_CHECKING:
    from site_workers.picture import Side, SitePicture

_SIDES = {"train": "train", "validation": "held out"}
MOST = 30
"""Columns and features that are shown: the first ones."""


def show(folder: Path) -> None:
    """For the operator alone: exact numbers of rows."""
    from site_workers.picture import picture

    found = picture(folder)
    if not found.files and not found.sides:
        return
    out.print("\nYour rows, for you alone: nothing of this is sent.")
    _show_columns(found)
    if found.sides:
        show_features(found.sides, found.features)


def _show_columns(found: SitePicture) -> None:
    from rich.table import Table

    names = list(dict.fromkeys(column.name for one in found.files.values() for column in one.columns))
    table = Table(title="in the files")
    table.add_column("column")
    table.add_column("kind")
    for side in found.files:
        table.add_column(_SIDES[side], justify="right")
        table.add_column("gaps", justify="right", no_wrap=True)
    for name in names[:MOST]:
        cells, kinds = [], []
        for one in found.files.values():
            column = next((column for column in one.columns if column.name == name), None)
            kinds += [] if column is None else [column.kind]
            cells += ["absent", ""] if column is None else [
                f"{column.low} to {column.high}" if column.low else "–", _share(column.missing)]
        table.add_row(name, " or ".join(dict.fromkeys(kinds)), *cells)
    out.print(table)
    _and_more(len(names), "columns")
    for side, one in found.files.items():
        if one.skipped:
            out.print(f"[yellow]![/] {_SIDES[side]}: "
                      f"{how_many(one.skipped, 'line', 'was skipped: it has', 'were skipped: they have')} more or fewer "
                      "values than the first line has names")
        for hint in one.hints:
            out.say("[yellow]![/] {}: {}", _SIDES[side], hint)


def show_features(sides: dict[str, Side], names: Sequence[str]) -> None:
    """What a recipe makes of rows. names: of the features; empty: they have none."""
    from rich.table import Table

    table = Table("", title="as the recipe sees them")
    for side in sides:
        table.add_column(_SIDES.get(side, side), justify="right")
    both = list(sides.values())
    table.add_row("rows", *(f"{one.rows:,}" for one in both))
    table.add_row("count for nothing", *(f"{one.idle:,}" for one in both))
    for name in list(dict.fromkeys(name for one in both for name in one.groups))[:MOST]:
        table.add_row(name, *(_share(one.groups[name]) if one.groups else "–" for one in both))
    features = max(len(one.low) for one in both)
    for place in range(min(MOST, features)):
        table.add_row(names[place] if names else f"feature {place}", *(
            f"{one.low[place]:.3g} to {one.high[place]:.3g}, {_share(one.zero[place])} zero" if one.low else "–"
            for one in both))
    out.print(table)
    _and_more(features, "features")


def _share(share: float) -> str:
    return "0 %" if share == 0 else "<1 %" if share < 0.01 else f"{share:.0%}".replace("%", " %")


def _and_more(found: int, what: str) -> None:
    if found > MOST:
        out.print(f"… and {found - MOST} more {what}")
