"""What a campaign has cost so far, and what of its budget remains: in sentences, and as files to take along."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from fedround.spoken import one_line
from tasks.reporting.charts import nice_ticks
from tasks.reporting.record import RoundRecord, foremost, local, metrics_of
from tasks.reporting.words import amount, spent

_OBEYED_BY_SPREADSHEETS = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


def forecast(record: RoundRecord) -> str:
    """How many rounds the budget still pays for, and what will be spent after them; empty: nothing was agreed.

    A site takes the least noise with which all agreed rounds cost at most the limit (`mechanism_for`). So what remains is
    said in rounds: epsilons do not add up.
    """
    if record.epsilon_limit is None or record.rounds_agreed is None:
        return ""
    left, limit = max(0, record.rounds_agreed - record.round), amount(record.epsilon_limit)
    most = max((row for row in record.sites if row.epsilon is not None), key=lambda row: row.epsilon or 0.0, default=None)
    so_far = "" if most is None else f" So far {one_line(most.site)} has spent most, {spent(most.epsilon)}."
    if most is not None and most.epsilon_alone is not None:
        so_far += f" Noise is shared: if nobody else's counted, it would be {spent(most.epsilon_alone)}."
    if left == 0:
        return f"All {record.rounds_agreed} rounds for which epsilon {limit} was agreed are done: no other fits.{so_far}"
    rounds = "1 more round fits" if left == 1 else f"{left} more rounds fit"
    return (f"Epsilon {limit} was agreed for {record.rounds_agreed} rounds: {rounds}, and after all of them no site has "
            f"spent more than {limit} on this run. An attempt that fails is paid, too, and leaves room for fewer.{so_far}")


@dataclass(frozen=True)
class Milestone:
    """The first round whose model reached a level on public rows, and what had been uploaded by then; None: not known."""

    level: float
    round: int
    uploaded_bytes: int | None


def milestones(records: Sequence[RoundRecord]) -> tuple[str, list[Milestone]]:
    """The metric's word, and round levels of it above the first round's value, in order."""
    reached = [(place, told[1]) for place, record in enumerate(records) if (told := foremost(record.public)) is not None]
    word = next((told[0] for record in records if (told := foremost(record.public)) is not None), "")
    if len(reached) < 2:
        return word, []
    first, best = reached[0][1], max(value for _, value in reached)
    found = []
    for level in nice_ticks(first, best):
        place = next((place for place, value in reached if value >= level), None)
        if first < level and place is not None:
            sizes = [record.uploaded_bytes for record in records[:place + 1]]
            whole = records[0].round == 1 and all(sizes)
            found.append(Milestone(level, records[place].round, sum(sizes) if whole else None))
    return word, found


@dataclass(frozen=True)
class Download:
    """A file inside the page."""

    words: str
    name: str
    address: str


def downloads(records: Sequence[RoundRecord]) -> tuple[Download, ...]:
    """The last round's record as JSON; its sites, and all rounds so far, as tables."""
    last = records[-1]
    name = f"{last.federation}-{last.run}-{last.round:05d}"
    return (download("This round (JSON)", f"{name}.json", "application/json", last.model_dump_json(indent=1)),
            download("Its sites (CSV)", f"{name}-sites.csv", "text/csv", csv_of(_sites(last))),
            download("All rounds so far (CSV)", f"{name}-rounds.csv", "text/csv", csv_of(_rounds(records))))


def _sites(record: RoundRecord) -> list[list[object]]:
    head: list[object] = ["site", "outcome", "weight", "norm", "distance", "influence", "epsilon", "uploaded_bytes",
                          "local_metric", "local", "local_margin", "local_rows", "answered_s", "fetched_s", "fetches"]
    return [head, *([row.site, row.outcome, row.weight, row.norm, row.distance, row.influence, row.epsilon,
                     row.uploaded_bytes, *(local(row) or (None, None, None)), None if row.local is None else row.local.rows,
                     row.answered_s, row.fetched_s, row.fetches]
                    for row in record.sites)]


def _rounds(records: Sequence[RoundRecord]) -> list[list[object]]:
    metrics = metrics_of(records)
    named = [f"{metric.place}_{metric.name}" for metric in metrics]
    head: list[object] = ["round", "ended", "updates", "sites", *named, *(f"{name}_margin" for name in named),
                          "largest_epsilon", "uploaded_bytes", "seconds", "model"]
    body: list[list[object]] = [
        [one.round, None if one.ended is None else one.ended.isoformat(), one.updates, len(one.sites),
         *(metric.of(one) for metric in metrics), *(metric.margin(one) for metric in metrics), one.largest_epsilon,
         one.uploaded_bytes, one.seconds, one.model] for one in records]
    return [head, *body]


def csv_of(rows: Sequence[Sequence[object]]) -> str:
    """A table as CSV; no cell is a formula for a spreadsheet."""
    written = io.StringIO()
    csv.writer(written).writerows([[_cell(cell) for cell in row] for row in rows])
    return written.getvalue()


def _cell(cell: object) -> object:
    """A spreadsheet takes text that begins like a formula for one: an apostrophe says that it is none."""
    if not isinstance(cell, str):
        return cell
    text = one_line(cell)
    return f"'{text}" if text.startswith(_OBEYED_BY_SPREADSHEETS) else text


def download(words: str, name: str, kind: str, text: str) -> Download:
    """A file that the page itself holds."""
    return Download(words, name, f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}")
