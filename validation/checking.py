"""A contract on rows that need not fit into memory: every check, whether it holds, and how many rows fail it.

The verdicts are those of `validation.judging`, on the same files. Rows are judged a part at a time, by `fast_checks` where
they know the answer and by Great Expectations otherwise. Checks on all rows together keep what they need of each part; only
for the rare ones are their columns read whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from fedround.learning.encoding import by_types
from validation import fast_checks, judging
from validation import rows as gate
from validation.contract import ROW_BY_ROW, TYPES, Check, Contract, columns_of, is_form
from validation.row_parts import RowFiles
from validation.table_checks import tally_for
from validation.tables import plain_frame

if TYPE_CHECKING:
    import pandas as pd

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Result:
    """What became of one check."""

    check: Check
    about: Literal["form", "rows", "tables"]
    """form: columns and types, as the files declare them; rows: each row by itself; tables: all rows together."""
    holds: bool
    failing: int | None
    """How many rows fail it, each by itself; None: it is not about single rows, or its columns are not there."""


@dataclass(frozen=True)
class Checked:
    """A contract on files of rows."""

    results: tuple[Result, ...]
    """In the contract's order."""
    rows: int
    left_out: int
    """How many rows would count for nothing: they fail a check that is an error."""

    @property
    def holds(self) -> bool:
        """Whether nothing fails but what only warns."""
        return all(one.holds or one.check.severity == "warning" for one in self.results)


def check_rows(tables: Sequence[RowFiles], contract: Contract) -> Checked:
    """Judge each of these tables by itself, and say what fails in one of them. Raises what `RowFiles` raises."""
    found = [_checked(files, contract) for files in tables]
    return Checked(tuple(_of_all(results) for results in zip(*(one.results for one in found), strict=True)),
                   sum(one.rows for one in found), sum(one.left_out for one in found))


def _of_all(results: Sequence[Result]) -> Result:
    """One check on all tables: what it fails for is the form, if one table fails it for that."""
    failing = [one.failing for one in results if one.failing is not None]
    worst = min(results, key=lambda one: (one.holds, one.about != "form"))
    return Result(worst.check, worst.about, worst.holds, sum(failing) if failing else None)


def _checked(files: RowFiles, contract: Contract) -> Checked:
    forms, rows, left_out = files.forms(), 0, 0
    watched = [_Watched(check, forms, files) for check in contract.checks]
    wanted = {name for one in watched if one.form is None for name in columns_of(one.check)}
    for part in files.typed_parts(sorted(wanted) or None):
        fails_N = np.zeros(len(part), np.bool_)
        for one in watched:
            one_N = one.see(part)
            if one.check.severity == "error":
                fails_N |= one_N
        rows, left_out = rows + len(part), left_out + int(fails_N.sum())
    return Checked(tuple(one.result() for one in watched), rows, left_out)


class _Watched:
    """One check, while the rows go by."""

    def __init__(self, check: Check, forms: Sequence[pd.DataFrame], files: RowFiles):
        self.check, self._asked, self._files = judging.in_our_types(check), check, files
        self.form = _by_form(self.check, forms, files.typed)
        """Whether it holds, if the form of the files decides that."""
        self._by_row = check.type in ROW_BY_ROW or check.type in TYPES
        self._tally = None if self._by_row or self.form is not None else tally_for(check)
        self._failing = 0

    def see(self, part: pd.DataFrame) -> Bools:
        """The rows of this part that fail it, (N,)."""
        fails_N = np.zeros(len(part), np.bool_)
        if self.form is None and self._by_row:
            fails_N = _failing(self.check, part, self._files.typed)
            self._failing += int(fails_N.sum())
        if self._tally is not None:
            self._tally.add(plain_frame(part[list(columns_of(self.check))]) if columns_of(self.check) else part)
        return fails_N

    def result(self) -> Result:
        """After the last part."""
        if self.form is not None:
            return Result(self._asked, "form", self.form, None)
        if self._by_row:
            return Result(self._asked, "rows", self._failing == 0, self._failing)
        holds = _whole_holds(self.check, self._files) if self._tally is None else self._tally.holds()
        return Result(self._asked, "tables", holds, None)


def _by_form(check: Check, forms: Sequence[pd.DataFrame], typed: bool) -> bool | None:
    """Whether the files' form decides the check, and how; None: the rows do."""
    if not all(set(columns_of(check)) <= set(form.columns) for form in forms):
        return False
    if not is_form(check) or (check.type in TYPES and not typed):
        return None
    if not all(_form_holds(check, form) for form in forms):
        return False
    objects = check.type in TYPES and any(form[name].dtype == object for form in forms for name in columns_of(check))
    return None if objects else True


def _form_holds(check: Check, form: pd.DataFrame) -> bool:
    if (known := fast_checks.form_holds(check, form)) is not None:
        return known
    with gate.silence():
        batch = gate.batch_of(form)
        return batch is not None and gate.passes(check, batch)


def _failing(check: Check, part: pd.DataFrame, typed: bool) -> Bools:
    columns = list(dict.fromkeys(columns_of(check)))
    if check.type in TYPES and not typed:
        return judging.of_another_type(plain_frame(part[columns]), check)
    fails_N = np.zeros(len(part), np.bool_)
    for places, table in by_types(part[columns]):       # as `judging`: rows of the same types together
        alike = table if len(places) == len(table) else table.iloc[places].reset_index(drop=True)
        known = fast_checks.failing(check, alike)
        fails_N[places] = judging.rows_that_fail(alike, check) if known is None else known
    return fails_N


def _whole_holds(check: Check, files: RowFiles) -> bool:
    import pandas as pd

    whole = pd.concat(list(files.parts(columns_of(check) or None)), ignore_index=True)
    with gate.silence():
        batch = gate.batch_of(whole)
        return batch is not None and gate.passes(check, batch)
