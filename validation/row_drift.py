"""Evidently's whole report over rows, for whoever may see them. It holds exact minima and maxima, so it stays there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedround.errors import ContractError
from fedround.files import write_whole
from validation.evidently_report import drift_preset
from validation.rows import read_rows

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ColumnDrift:
    """One column, as Evidently judges it."""

    column: str
    method: str
    score: float
    threshold: float

    @property
    def drifted(self) -> bool:
        """A p-value has drifted below the threshold, a distance above it."""
        return self.score < self.threshold if "p_value" in self.method else self.score >= self.threshold


def report(before: Sequence[Path], now: Sequence[Path], page: Path) -> list[ColumnDrift]:
    """Compare all rows of these files; writes Evidently's page (mode 0600), which loads nothing from a network.

    Raises ContractError if the rows have no column in common, or SetupError if a file cannot be read.
    """
    old, new = _joined(before), _joined(now)
    both = [name for name in new.columns if name in old.columns]
    if not both or old.empty or new.empty:
        raise ContractError("the rows of then and now have no column in common, or there are none: nothing can be compared")
    snapshot, found = drift_preset(new[both], old[both], with_tests=True)
    write_whole(page, snapshot.get_html_str(as_iframe=False).encode(), durable=False, mode=0o600)
    return [ColumnDrift(of["column"], of["method"], float(one["value"]), float(of["threshold"]))
            for one in found for of in [one["config"]]]


def _joined(paths: Sequence[Path]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat([read_rows(path) for path in paths], ignore_index=True)
