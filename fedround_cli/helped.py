"""How `--help` is laid out: as typer does it, but no name is cut where the terminal is narrow, and a flag has no type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import columns
from rich.table import Table
from typer import core, rich_utils

if TYPE_CHECKING:
    import click


class _Whole(Table):
    """A table that breaks a long word over lines and cuts none."""

    def add_row(self, *cells: Any, **how: Any) -> None:
        super().add_row(*cells, **how)
        for column in self.columns:
            column.overflow = "fold"


def _type_of(option: core.TyperOption, ctx: click.Context) -> str | None:
    """Of its value; a flag has none. ('--keep <bool>' reads as if 'true' were to follow.)"""
    return None if option.is_flag and option.metavar is None else _typed(option, ctx)


_typed: Any = core.TyperOption.display_type_rich


def lay_out() -> None:
    """From now on."""
    rich_utils.Table = columns.Table = _Whole  # type: ignore[misc]
    core.TyperOption.display_type_rich = _type_of  # type: ignore[method-assign, assignment]
