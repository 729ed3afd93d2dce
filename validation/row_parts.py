"""Rows a part at a time, as a contract sees them: what `validation.rows` reads whole, where it need not fit into memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedround.values import Name
from validation import row_files as files
from validation import rows as gate
from validation.tables import Table, plain_frame, to_frame

if TYPE_CHECKING:
    import pandas as pd

ROWS_OF_A_PART = 1 << 17


@dataclass(frozen=True)
class RowFiles:
    """What a path of rows names, as one table."""

    path: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, in order."""
        return tuple(part.path for part in files.parts_of(self.path))

    @property
    def typed(self) -> bool:
        """Whether the files say what type a column has."""
        return files.is_typed(self.path)

    def forms(self) -> list[pd.DataFrame]:
        """The columns, with their types, and no rows."""
        with gate.silence():
            return [to_frame([Table(self.path, dates=self.typed).without_rows()])]

    def parts(self, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """All rows, `ROWS_OF_A_PART` at a time, in numpy's own types, with those of these columns that are there, or all.

        Raises as `Table`.
        """
        return map(plain_frame, self.typed_parts(columns))

    def typed_parts(self, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """The same as `rows.read_typed` has them, exactly: no number and no gap changes another row's type."""
        with gate.silence():
            parts = Table(self.path, columns, dates=self.typed).batches(ROWS_OF_A_PART, exactly=True)
        while True:
            with gate.silence():
                part = next(parts, None)
                frame = None if part is None else to_frame([part])
            if frame is None:
                return
            if len(frame):
                yield frame


def row_files(named: Path) -> RowFiles:
    """The rows that a path names. Raises as `row_files.parts_of`, and SetupError for a file that cannot be opened."""
    for part in files.parts_of(named):
        files.opened(part.path).close()
    return RowFiles(named)


def name_after(rows: Path) -> Name:
    """The name of what is made of these rows: the file's or folder's, as far as a name can hold it."""
    return re.sub(r"[^a-z0-9]+", "-", rows.stem.lower()).strip("-")[:40].strip("-") or "rows"
