"""Evidently's drift preset over two tables of rows. Imported late: it costs seconds of processor time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def drift_preset(now: pd.DataFrame, before: pd.DataFrame, *, categories: tuple[str, ...] | None = None,
                 with_tests: bool = False, **options: Any) -> tuple[Any, list[dict[str, Any]]]:
    """Evidently's snapshot, and its metric of each column (`ValueDrift`).

    categories: the columns that hold categories; None: Evidently looks at the values. options: of `DataDriftPreset`.
    Nothing is reported to Evidently's makers.
    """
    os.environ["DO_NOT_TRACK"] = "1"
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    shape = DataDefinition() if categories is None else DataDefinition(categorical_columns=list(categories))
    new, old = (Dataset.from_pandas(frame, data_definition=shape) for frame in (now, before))
    snapshot = Report([DataDriftPreset(**options)], include_tests=with_tests).run(new, old)
    return snapshot, [one for one in snapshot.dict()["metrics"] if one["config"]["type"].endswith(":ValueDrift")]
