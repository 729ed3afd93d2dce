"""fedround doctor: why a round did not commit, or a question has no result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedround.errors import FedroundError
from fedround.spoken import how_many
from fedround_cli.folders import DEFAULT_COORDINATOR, CoordinatorFolder
from fedround_cli.output import AsJson, command, out, print_json

if TYPE_CHECKING:
    from tasks.doctor import Waiting


@command
def doctor(
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    run: Annotated[str | None, typer.Option("--run", "-r", help="The campaign; default: the last one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say why a round did not commit, or a question has no result: what each site said to the plans that wait, who serves,
    and what helps. Changes nothing.

    Exit code 0 if nothing is in the way, 1 if something is.
    """
    from dataclasses import asdict

    from flows.service import enter
    from tasks.doctor import diagnose
    from tasks.progress import read_progress

    coordinator, progress = enter(folder), read_progress(folder)
    run = run or (progress.run if progress is not None else None)
    if run is None:
        raise FedroundError("no round was begun from this folder: start one with 'fedround round run', or name a run with "
                            "--run")
    found, silent, problem = diagnose(coordinator, run), *_silent(folder)
    last = progress.problem if progress is not None and progress.run == run else None
    well = not any(one.is_held for one in found.waits) and not silent and not problem
    if as_json:
        print_json({"run": run, "committed": found.committed, "waits": [
            {"asks": one.plan.asks.kind, "round": one.plan.round, "attempt": one.plan.attempt, "quorum": one.plan.quorum,
             "missing": one.missing, "sites": [asdict(site) for site in one.sites],
             "regions": [asdict(region) for region in one.regions]} for one in found.waits],
            "silent": silent, "problem": problem, "last": last})
    else:
        if problem:
            out.say("[bold red]✗[/] {}", problem)
        for member in silent:
            out.say("[bold red]✗[/] {} does not serve: start its process", member)
        if last:
            out.say("the last round said: {}", last)
        for one in found.waits:
            _show(one)
        if found.waits:
            out.say("then run it again: answers that are there count")
        else:
            out.say("run '{}': no plan waits{}", run, "; the run has not begun" if found.committed is None else
                    f"; round {found.committed} is committed")
    if not well:
        raise typer.Exit(1)


def _show(waiting: Waiting) -> None:
    from tasks.doctor import Word
    from tasks.plan import in_words

    plan = waiting.plan
    many = how_many(len(plan.cohort), "site")
    waits = f"{waiting.missing} more of {many} must answer" if waiting.missing else "enough sites have answered"
    out.say("{} waits: {}, the quorum is {}", in_words(plan), waits, plan.quorum)
    for one in (*waiting.sites, *waiting.regions):
        out.say(f"{'[green]✓[/]' if one.said is Word.ANSWERED else '[bold red]✗[/]'} {{}}: {{}}", one.site,
                ": ".join(filter(None, (one.said, one.why))))
        if one.helps:
            out.say("    what helps: {}", one.helps)


def _silent(folder: Path) -> tuple[list[str], str | None]:
    """The members that do not serve, or why the API cannot say."""
    import asyncio

    from flows.service import look_at_members

    try:
        return [member.name for member in asyncio.run(look_at_members(folder)) if not member.serves], None
    except FedroundError as error:
        return [], str(error)
