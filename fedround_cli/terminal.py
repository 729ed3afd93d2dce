"""Where text meets the terminal. Only this file prints, so that no command forgets what foreign text may do to a terminal.

A site's name, a refusal, a note, a file's name may hold anything. Promised: no text ends a command, moves the cursor, rings,
hides the text beside it or turns its direction. A value that is passed as a value, or stands in a table's cell, is shown
letter by letter. In a sentence that was put together beforehand, the few tags of `styled` change the colour, and nothing
else.
"""

from __future__ import annotations

import codecs
import io
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from fedround.spoken import one_line, visible
from fedround_cli.fitted import fitted

if TYPE_CHECKING:
    from rich.panel import Panel
    from rich.progress import TextColumn
    from rich.spinner import Spinner
    from rich.status import Status

_TAG = re.compile(r"\[(bold red|bold|dim|green|yellow|red|/)\]")
_PIECE = re.compile(rf"({_TAG.pattern.replace('(', '(?:', 1)}|{{}})")


_WIDEST = 10_000

_PLAINER = {"•": "*", "✓": "+", "✗": "x", "ε": "e", "δ": "d", "σ": "s", "μ": "u", "≤": "<", "≥": ">", "×": "x", "±": "~",
            "→": ">", "…": ".", "–": "-", "—": "-", "−": "-", "·": ".", "’": "'", "“": '"', "”": '"', "€": "E", "█": "#",
            "▓": "%", "▒": "=", "░": ".", "▚": "/", "▞": "o", "▪": "*", "▫": "+", "◆": "@", "◇": "^", "●": "*", "○": "o",
            "─": "-", "│": "|", "┤": "|", "└": "+", "²": "2", "✕": "x", "\u00a0": " ", "\u202f": " "}
"""Signs of one column each, so that tables stay tables."""


def _plainer(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAINER.get(sign, "?") for sign in error.object[error.start:error.end]), error.end


codecs.register_error("plainer", _plainer)


def show_plainly(*streams: TextIO) -> None:
    """Let these streams show a plainer sign where their encoding has none: a terminal's language ends no command."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plainer")


def styled(template: str, *values: object) -> Text:
    """Text in the styles of "[bold]…[/]", nested or not; a closing tag too many is ignored.

    `{}` stands for one of the `values`, which are shown unchanged, on one line.
    """
    text, styles, given = Text(), list[str](), list(values)
    for piece in _PIECE.split(template):
        tag = _TAG.fullmatch(piece)
        if piece == "{}" and given:
            text.append(one_line(str(given.pop(0))), " ".join(styles))
        elif tag is None:
            text.append(visible(piece), " ".join(styles))
        elif tag[1] == "/":
            del styles[-1:]
        else:
            styles.append(tag[1])
    return text


class Terminal(Console):
    """A console. A string that is printed is a sentence for `styled`; anywhere else a string is plain text."""

    def __init__(self, *, stderr: bool = False):
        super().__init__(stderr=stderr, soft_wrap=True, markup=False, emoji=False)
        self._width = self._height = None       # or COLUMNS would be that of the moment of the import

    def print(self, *objects: Any, **how: Any) -> None:
        """Print sentences and tables. A table loses no sign: on a narrow terminal it is `fitted`, and where nobody looks, in
        a pipe or a file, it is as wide as it likes.
        """
        with self._as_wide_as([one for one in objects if isinstance(one, Table)]):
            super().print(*(styled(one) if isinstance(one, str) else fitted(self, one, self.width)
                            if isinstance(one, Table) else one for one in objects), **how)

    @contextmanager
    def _as_wide_as(self, tables: list[Table]) -> Iterator[None]:
        before = self._width
        for column in (column for table in tables for column in table.columns):
            column.overflow = "fold"
        if tables and not self.is_terminal and "COLUMNS" not in os.environ:
            wide = self.options.update(max_width=_WIDEST)
            self.width = max(self.width, *(Measurement.get(self, wide, table).maximum for table in tables))
        try:
            yield
        finally:
            self._width = before

    def say(self, template: str, *values: object) -> None:
        """Print one sentence, with values that somebody else has written."""
        super().print(styled(template, *values))

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The last step before the terminal: in everything that is drawn, a sign replaces each control character."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)

    def status(self, status: RenderableType, **how: Any) -> Status:
        """What is being done, with a spinner."""
        return super().status(Text(visible(status)) if isinstance(status, str) else status, **how)


def wheel(doing: str) -> Spinner:
    """What is being done, for a live display."""
    from rich.spinner import Spinner

    return Spinner("dots", Text(one_line(doing)))


def boxed(template: str, *values: object, title: str) -> Panel:
    """A sentence for `styled`, in a frame."""
    from rich.panel import Panel

    return Panel(styled(template, *values), title=Text(one_line(title)), border_style="green")


def words(form: str) -> TextColumn:
    """A column of a progress bar."""
    from rich.progress import TextColumn

    return TextColumn(form, markup=False)
