"""Tables on terminals that are too narrow for them: a name, a number or a digest stays in one piece.

A column is as wide as its longest word; what is left goes to those that have sentences. Where even the words do not fit,
each row is a list: a line for each column, with its head.
"""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

_LONGEST, _PART = 40, 24
"""No name is longer. Of longer words, keys and paths, a line holds so much at least: nobody types them."""


def fitted(console: Console, table: Table, width: int) -> RenderableType:
    """The table, or a list of its rows, in at most `width` columns where its words allow it."""
    wide = console.options.update(max_width=10_000)
    most = Measurement.get(console, wide, table).maximum
    if most <= width or not table.columns:
        return table
    longest = [_widest(column) for column in table.columns]
    words = [_widest_word(column) for column in table.columns]
    free = width - (most - sum(longest)) - sum(words)
    if free < 0:
        return _listed(table, width)
    wanted = [long - word for long, word in zip(longest, words, strict=True)]
    for column, word, want in zip(table.columns, words, wanted, strict=True):
        column.width = word + free * want // max(1, sum(wanted))
    return table


def _listed(table: Table, width: int) -> RenderableType:
    heads = [Column(header=column.header) for column in table.columns]
    head = max(*map(_widest_word, heads), min(width // 3, max(map(_widest, heads))))
    rows: list[RenderableType] = []
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        one = Table.grid("", "", padding=(0, 2, 0, 0), pad_edge=False)
        one.columns[0].width, one.columns[1].overflow = head, "fold"
        for column, cell in zip(table.columns, cells, strict=True):
            if _plain(cell):
                one.add_row(column.header, cell)
        rows += [one, Text()]
    ends = [[Text(_plain(end), style="italic")] if end else [] for end in (table.title, table.caption)]
    return Group(*ends[0], *rows[:-1], *ends[1])


def _texts(column: Column) -> list[str]:
    return [_plain(column.header), *map(_plain, column.cells)]


def _plain(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)


def _widest(column: Column) -> int:
    return max((cell_len(line) for text in _texts(column) for line in text.split("\n")), default=1)


def _widest_word(column: Column) -> int:
    found = (cell_len(word) for text in _texts(column) for word in text.split())
    return max((word if word <= _LONGEST else _PART for word in found), default=1)
