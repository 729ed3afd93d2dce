"""Pieces of markdown that any reader draws alike."""

from __future__ import annotations

from collections.abc import Sequence

from fedround.spoken import one_line


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as GitHub writes it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: str) -> str:
    """Foreign words as a span of code.

    A backquote would end the span, and a bar the cell: a similar character replaces each.
    """
    return f"`{one_line(text).replace('`', 'ˋ').replace('|', '¦') or ' '}`"
