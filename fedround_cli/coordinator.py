"""fedround coordinator start, fedround deploy."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from fedround_cli.folders import DEFAULT_COORDINATOR, CoordinatorFolder
from fedround_cli.output import command, log_to_terminal, out

app = typer.Typer(no_args_is_help=True, help="The coordinator's process.")


@app.command()
@command
def start(folder: CoordinatorFolder = DEFAULT_COORDINATOR) -> None:
    """Serve the federation's rounds until stopped: scheduled, from the UI's form, or from `train run` and `round run`.

    One process, one round at a time. If it is killed at any moment and started again, it continues where it stopped.
    """
    from flows.service import serve_coordinator

    log_to_terminal()
    serve_coordinator(folder)


@command
def deploy(
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    cron: Annotated[str | None, typer.Option(
        help="One more round at these times (UTC), for example '0 3 * * 1'. Without it the schedule is removed. If the "
             "federation tells rows apart: a campaign on the last partition that is complete then.")] = None,
    run: Annotated[str, typer.Option(
        help="The run that scheduled rounds continue; if the federation tells rows apart, how the runs' names "
             "begin.")] = "scheduled",
) -> None:
    """Register pools, deployments and the schedule with the Prefect server. Repeat it after changing the members.

    The server learns names and forms, and no code: no path, no command, no entrypoint.
    """
    from flows.service import register

    for name in asyncio.run(register(folder, cron, run)):
        out.print(f"deployed {name}")
    if cron is not None:
        out.print(f"at '{cron}' (UTC), while 'fedround coordinator start' runs: one more round of run '{run}'; if the "
                  f"federation tells rows apart, a campaign on the last complete partition, in a run '{run}-…' of its own")
