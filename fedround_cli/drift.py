"""fedround drift run, show, act: what has changed in the sites' rows, from noised counts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from fedround.spoken import how_many
from fedround_cli.folders import DEFAULT_COORDINATOR, CoordinatorFolder
from fedround_cli.output import AsJson, command, out, print_json
from fedround_cli.requests import checked

if TYPE_CHECKING:
    from fedround.drift.judge import Drift

app = typer.Typer(no_args_is_help=True, help="Drift: which column has changed, at which sites, since when.")
Run = Annotated[str, typer.Option("--run", "-r", help="The run in which the measurements are kept.")]


@app.command("run")
@command
def drift_run(
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    run: Run = "watch",
    partition: Annotated[str | None, typer.Option(
        metavar="NAME", help="Whose rows are counted, such as 2026-w48, if the federation tells rows apart. Default: the "
                             "last that is over.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask every site to count what [drift] of the federation file names, once more, and say what has drifted.

    The first measurements of the run are what later ones are compared with. Asked again, no site is charged again. Campaigns
    measure by themselves, unless the federation file tells rows apart: then this command does, or a schedule.
    """
    from fedround_cli.campaign import show_campaign
    from flows.service import enter
    from tasks.drift import DriftRequest, judgements

    coordinator = enter(folder)
    request = checked(DriftRequest, {"run": run, "partition": partition})
    asked = request.model_dump(mode="json", exclude_none=True)
    asyncio.run(show_campaign(coordinator, "federated-drift", asked, quiet=as_json))
    _show(judgements(coordinator, run)[-1:], as_json)


@app.command()
@command
def show(
    run: Annotated[str, typer.Argument(help="A watch, or a campaign that measures drift.")] = "watch",
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    as_json: AsJson = False,
) -> None:
    """Show every measurement of drift of a run, the newest with all its columns."""
    from fedround.errors import ContractError
    from tasks.coordinator import open_coordinator
    from tasks.drift import judgements

    found = judgements(open_coordinator(folder), run)
    if not found:
        raise ContractError(f"run '{run}' has no measurement of drift: 'fedround drift run', or a campaign, makes one")
    _show(found, as_json)


@app.command()
@command
def act(
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    retrain: Annotated[int | None, typer.Option(
        min=1, max=10_000, metavar="ROUNDS", help="At each alarm, start a campaign of so many rounds in a new run.")] = None,
    warn: Annotated[bool, typer.Option("--warn", help="Start nothing: an alarm is an event, and in the report.")] = False,
) -> None:
    """Say what an alarm starts. Each alarm is an event in Prefect; with --retrain, an automation there acts on it.

    The sites' policies and ledgers hold for the new campaign as for any other.
    """
    from fedround.errors import ContractError
    from flows.service import enter
    from flows.service import retrain as set_retraining

    if (retrain is not None) == warn:
        raise ContractError("say either --retrain ROUNDS or --warn")
    asyncio.run(set_retraining(enter(folder), retrain))
    out.print("an alarm is told, and starts nothing" if retrain is None else
              f"an alarm starts a campaign of {how_many(retrain, 'round')} in a new run")


def _show(found: list[Drift], as_json: bool) -> None:
    from tasks.reporting.drift import in_a_sentence

    if as_json:
        print_json([drift.model_dump(mode="json") for drift in found])
        return
    for drift in found[:-1]:
        out.say("{}: {}", drift.when, in_a_sentence(drift))
    show_drift(found[-1])


def show_drift(drift: Drift) -> None:
    """One measurement as a table."""
    from rich.table import Table

    from tasks.reporting.drift import HEAD, in_a_sentence, lines

    table = Table(*HEAD[:3], title=f"drift, measured after {drift.when} at {how_many(len(drift.sites), 'site')}")
    for name in HEAD[3:]:
        table.add_column(name, justify="right")
    for line in lines(drift):
        table.add_row(*line)
    out.print(table)
    out.say("[bold red]{}[/]" if drift.is_alarm else "{}", in_a_sentence(drift))
