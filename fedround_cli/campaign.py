"""A campaign on the terminal: what the round in progress is doing, and a line for every round that is committed."""

from __future__ import annotations

import asyncio
from typing import Any

from rich.live import Live
from rich.table import Table

from fedround.errors import FedroundError
from fedround.learning.tasks import Metrics, in_words
from fedround.records import QUESTIONS
from fedround.spoken import how_many
from fedround_cli.output import out
from fedround_cli.terminal import wheel
from flows.service import cancel, start, states
from tasks.coordinator import Coordinator
from tasks.progress import Progress, read_progress
from tasks.report import records
from tasks.reporting import RoundRecord
from tasks.reporting.record import foremost
from tasks.reporting.words import spent

WATCH_S = 0.3
ASK_S = 2.0
_WAITING_AFTER_S = 15.0
_VERBS = {one.model_fields["kind"].default: one.doing for one in QUESTIONS}
_SHORT = {"recall_at_20_fpr": "recall@20%FPR"}
_WORDS = {"missing": "late", "left_out": "left out", "excluded": "not asked"}


async def show_campaign(coordinator: Coordinator, flow: str, request: dict[str, Any], *, quiet: bool = False) -> None:
    """Start a flow and show it until it ends. Raises FedroundError, with the coordinator's sentence, if it fails.

    Ctrl-C asks the coordinator to stop, and waits for its answer.
    """
    started = await start(coordinator, flow, request)
    run = request["run"]
    shown = {record.round for record in records(coordinator, run)}
    if not quiet:
        out.print(f"[dim]in the UI: {started.url}[/]")
    waited, kind, message = 0.0, "", ""
    try:
        with Live(console=out, transient=True, refresh_per_second=8) as live:
            async for kind, message, final in states(started, WATCH_S, ASK_S):  # noqa: B007
                for record in records(coordinator, run):
                    if record.round not in shown and not quiet:
                        shown.add(record.round)
                        live.console.print(line(record))
                waited = waited + WATCH_S if kind == "SCHEDULED" else 0.0
                live.update("" if quiet else wheel(_now(kind, read_progress(coordinator.folder), run, waited)))
                if final:
                    break
    except (KeyboardInterrupt, asyncio.CancelledError):
        await cancel(started)
        out.print("asked the coordinator to stop; committed rounds stay, run the same command again to go on")
        raise
    progress = read_progress(coordinator.folder)
    if kind == "COMPLETED" and not quiet and progress is not None and progress.run == run and progress.problem is not None:
        out.say("{}", progress.problem)
    if kind != "COMPLETED":
        problem = progress.problem if progress is not None and progress.problem is not None else message
        raise FedroundError(f"the run ended as {kind.lower()}: {problem}")


def line(record: RoundRecord) -> str:
    """One committed round in one line."""
    outcomes: list[str] = [site.outcome for site in record.sites]
    parts = [f"[bold]round {record.round:>3}[/]", f"[green]{how_many(outcomes.count('updated'), 'update'):>11}[/]"]
    for outcome, colour in (("left_out", "red"), ("refused", "yellow"), ("rejected", "red"), ("missing", "yellow"),
                            ("excluded", "red")):
        word = _WORDS.get(outcome, outcome)
        if count := outcomes.count(outcome):
            parts.append(f"[{colour}]{count} {word}[/]")
    if record.public is not None:
        parts.append(_reached(record.public))
    if record.largest_epsilon is not None:
        parts.append(f"ε {spent(record.largest_epsilon)}")
    parts.append(f"[dim]{record.seconds:.1f} s  model {record.model[:12]}[/]")
    return "  ".join(parts)


def sites_table(record: RoundRecord) -> Table:
    """What became of every site in one round."""
    locally = {site.site: told for site in record.sites if (told := foremost(site.local)) is not None}
    scored = next((word for word, _ in locally.values()), "metric")
    table = Table("site", "outcome", "weight", "norm", "share", "ε spent", f"{scored} at the site", "note",
                  title=f"round {record.round}")
    for site in record.sites:
        table.add_row(site.site, _WORDS.get(site.outcome, site.outcome), f"{site.weight:g}", _number(site.norm, ".3g"),
                      _number(site.influence, ".3f"), spent(site.epsilon) if site.epsilon is not None else "",
                      _number(locally[site.site][1] if site.site in locally else None, ".3f"),
                      f"{site.note} {'' if site.outcome == 'refused' or not site.checks else 'warns: '}"
                      f"{', '.join(site.checks)}".strip())
    return table


def _now(kind: str, progress: Progress | None, run: str, waited: float) -> str:
    if kind == "SCHEDULED" and waited > _WAITING_AFTER_S:
        return "nobody has taken the run: does 'fedround coordinator start' run, or is another round in progress?"
    if kind == "SCHEDULED" or progress is None or progress.run != run:
        return "waiting for the coordinator …"
    if progress.stage in _VERBS and progress.cohort:
        answered = progress.updates + progress.refused + progress.rejected
        return (f"round {progress.round}: sites {_VERBS[progress.stage]}, {answered} of {progress.cohort} have answered "
                f"{'█' * answered}{'░' * (progress.cohort - answered)}"
                + (f"  ({progress.refused} refused)" if progress.refused else ""))
    return f"round {progress.round}: {progress.stage}"


def _reached(found: Metrics) -> str:
    """The first two metrics: a round has one line."""
    return "  ".join(f"{_SHORT.get(name, in_words(name))} {value:.{4 if place == 0 else 3}f}"
                     for place, (name, value) in enumerate([*found.known().items()][:2]))


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
