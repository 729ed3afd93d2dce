"""Who took part in a run so far, from the records of its rounds (`fedround.rounds.participation`)."""

from __future__ import annotations

from collections.abc import Sequence

from fedround.rounds.participation import Participation, Took
from fedround.rounds.participation import participation as of_rounds
from tasks.reporting.record import RoundRecord, SiteRow


def participation(records: Sequence[RoundRecord]) -> Participation | None:
    """Of the rounds of one run, in order. None: every member was asked in each."""
    return of_rounds([{row.site: _took(row) for row in record.sites} for record in records])


def _took(row: SiteRow) -> Took:
    used = (row.influence or 0.0) if row.outcome == "updated" else None
    return Took(row.weight, row.outcome != "excluded", row.outcome not in ("excluded", "missing"), used)
