"""fedround coordinator start, fedround deploy."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from fedround.errors import FedroundError
from fedround_cli.folders import DEFAULT_COORDINATOR, CoordinatorFolder
from fedround_cli.output import command, log_to_terminal, out
from fedround_cli.train import Epsilon, Rule, chosen

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
        help="A new schedule: one more round at these times, for example '0 3 * * 1'. If the federation tells rows "
             "apart: a campaign on the last partition that is complete then. Missed times are made up once.")] = None,
    time_zone: Annotated[str, typer.Option(help="Of the schedule's times: 'Europe/Berlin'.")] = "UTC",
    no_cron: Annotated[bool, typer.Option("--no-cron", help="Remove the schedule. Otherwise it stays as it is.")] = False,
    run: Annotated[str, typer.Option(
        help="The run that scheduled rounds continue; if the federation tells rows apart, how the runs' names "
             "begin.")] = "scheduled",
    epsilon: Epsilon = None,
    rule: Rule = None,
    automations: Annotated[bool, typer.Option(
        "--automations", help="Also make automations: a late site, a failed round, a budget that is nearly spent, drift, "
                              "answers that are rejected again and again, a forged signature.")] = False,
    notify: Annotated[str | None, typer.Option(
        metavar="BLOCK", help="Whom new automations tell: a notification block of the server, 'slack-webhook/ours'.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
) -> None:
    """Register pools and deployments with the Prefect server, and show what changes. Repeat it after changing the members.

    The schedule stays unless another is asked for, and so do pauses and limits that people have set in the UI. The server
    learns names and forms, and no code: no path, no command, no entrypoint.
    """
    from flows.service import automate, register

    if notify is not None and not automations:
        raise FedroundError("--notify says whom new automations tell: give --automations with it")
    if cron is not None and no_cron:
        raise FedroundError("--cron makes a schedule and --no-cron removes it: give one of them")
    choice = chosen(epsilon, rule)
    if choice and cron is None:
        raise FedroundError("--epsilon and --rule are of the runs that a schedule begins: give --cron with them")
    done = "would be deployed" if dry_run else "deployed"
    changes = asyncio.run(register(folder, None if cron is None else (cron, run, time_zone, choice), keep=not no_cron,
                                   dry=dry_run))
    if automations:
        changes += asyncio.run(automate(folder, notify, dry=dry_run))
    for change in changes:
        if change.of.startswith(("schedule", "pool ", "automation ")):
            if change.what:
                out.say("{}: {}", change.of, change.what)
        else:
            out.say("{} {}: {}", done, change.of, change.what or "as it was")
    if cron is not None and not dry_run:
        out.print(f"at '{cron}' ({time_zone}), while 'fedround coordinator start' runs: one more round of run '{run}'; "
                  f"if the federation tells rows apart, a campaign on the last full partition, in a run '{run}-…' of its own")
