"""fedround doctor: why a round did not commit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedround.errors import FedroundError
from fedround_cli.folders import DEFAULT_COORDINATOR, CoordinatorFolder
from fedround_cli.output import AsJson, command, out, print_json


@command
def doctor(
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    run: Annotated[str | None, typer.Option("--run", "-r", help="The campaign; default: the last one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say why a round did not commit: what each site said to the newest plan, who serves, and what helps. Changes nothing.

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
    well = found.missing == 0 and not silent and not problem
    if as_json:
        print_json({"run": run, "committed": found.committed, "round": None if found.plan is None else found.plan.round,
                    "missing": found.missing, "sites": [asdict(one) for one in found.sites], "silent": silent,
                    "problem": problem, "last": last})
    else:
        if problem:
            out.say("[bold red]✗[/] {}", problem)
        for member in silent:
            out.say("[bold red]✗[/] {} does not serve: start its process", member)
        if last:
            out.say("the last round said: {}", last)
        if found.plan is None:
            out.say("run '{}': no plan waits{}", run, "; the run has not begun" if found.committed is None else
                    f"; round {found.committed} is committed")
        else:
            waits = (f"{found.missing} more of {len(found.plan.cohort)} sites must answer" if found.missing
                     else "enough sites have answered")
            out.say("round {} of run '{}' waits: {}, the quorum is {}", found.plan.round, run, waits, found.plan.quorum)
            for one in found.sites:
                out.say(f"{'[green]✓[/]' if one.said == 'answered' else '[bold red]✗[/]'} {{}}: {{}}", one.site,
                        ": ".join(filter(None, (one.said, one.why))))
                if one.helps:
                    out.say("    what helps: {}", one.helps)
            out.say("then run it again: answers that are there count")
    if not well:
        raise typer.Exit(1)


def _silent(folder: Path) -> tuple[list[str], str | None]:
    """The members that do not serve, or why the API cannot say."""
    import asyncio

    from flows.service import look_at_members

    try:
        return [member.name for member in asyncio.run(look_at_members(folder)) if not member.serves], None
    except FedroundError as error:
        return [], str(error)
