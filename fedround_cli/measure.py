"""fedround measure run, show: counts of the sites' rows, noised at the sites."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedround.errors import ContractError, FedroundError
from fedround_cli.folders import DEFAULT_COORDINATOR, AnyFolder, CoordinatorFolder
from fedround_cli.output import AsJson, command, out, print_json

if TYPE_CHECKING:
    from fedround.agreement import Federation
    from fedround.records import Finding
    from fedround.statistics import Statistic

app = typer.Typer(no_args_is_help=True, help="Counts of the sites' rows: histograms and groups, noised at each site.")


@app.command("run")
@command
def measure_run(
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    run: Annotated[str, typer.Option(
        "--run", "-r", help="The run in which the result is kept. Use one for measurements only: their cost counts against "
        "their run's epsilon.")] = "study",
    histogram: Annotated[list[str] | None, typer.Option(
        "--histogram", metavar="COLUMN=EDGE,…", help="Count records by a column of numbers, between these edges. Repeatable.",
    )] = None,
    groups: Annotated[list[str] | None, typer.Option(
        "--groups", metavar="COLUMN=VALUE,…", help="Count records by the values of a column; several columns together: "
        "'sex=1,2 x region=north,south'. Repeatable.")] = None,
    noise: Annotated[float | None, typer.Option(
        help="Standard deviation of the noise that every site adds to every count. Default: as for scores, by the federation "
        "file.")] = None,
    quorum: Annotated[int | None, typer.Option(
        help="Sites that must answer. Default: as the federation file says.")] = None,
    deadline_s: Annotated[int | None, typer.Option("--deadline-s", help="Seconds that sites have to answer.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask every site to count something in its rows, and show the total. The same question costs nothing again.

    For example: `fedround measure run --histogram age=20,30,40 --groups sex=1,2 --noise 10`. A site answers if its policy
    allows the purpose "measure" and these statistics. Its ledger is charged for each of them. The work is done by `fedround
    coordinator start` and the sites' processes; this command asks and watches.
    """
    from pydantic import ValidationError

    from fedround_cli.campaign import show_campaign
    from flows.service import enter
    from tasks.ask import MeasurementRequest, known

    coordinator = enter(folder)
    asked = statistics(coordinator.federation, histogram or [], groups or [], noise)
    try:
        request = MeasurementRequest(run=run, quorum=quorum, deadline_s=deadline_s, statistics=asked)
    except ValidationError as error:
        raise FedroundError("; ".join(f"{p['loc'][0]}: {p['msg'].lower()}" for p in error.errors())) from None
    finding = known(coordinator, request)
    if finding is None:
        asyncio.run(show_campaign(coordinator, "federated-measurement", request.model_dump(mode="json", exclude_none=True),
                                  quiet=as_json))
        finding = known(coordinator, request)
    elif not as_json:
        out.print("[dim]this was asked before: nobody is asked, or charged, again[/]")
    if finding is None:
        raise FedroundError(f"the measurement ended and run '{run}' has no result of it: was another one asked meanwhile? "
                            "'fedround measure show' lists what there is")
    _show([finding], as_json)


@app.command("show")
@command
def show(
    run: Annotated[str, typer.Argument(help="The run whose measurements to show.")] = "study",
    folder: AnyFolder = DEFAULT_COORDINATOR,
    as_json: AsJson = False,
) -> None:
    """Show everything that was measured in a run. 'fedround verify' proves that it is what the sites said."""
    from fedround_cli.membership import store_and_key
    from infra.history import findings, read_finding

    store, key = store_and_key(folder)
    found = [read_finding(store, run, number, attempt, "measure", key) for number, attempt in findings(store, run, "measure")]
    if not found:
        raise ContractError(f"run '{run}' has no measurement: 'fedround measure run' asks for one")
    _show(found, as_json)


def statistics(federation: Federation, histograms: list[str], groups: list[str],
               noise: float | None) -> tuple[Statistic, ...]:
    """What the options ask for. Raises ContractError that names the option and what was wrong with it."""
    from fedround.statistics import GroupCounts, Histogram
    from fedround.values import parse

    noise_std = federation.evaluation.noise_std if noise is None else noise
    asked: list[Statistic] = []
    for said in histograms:
        column, edges = _named(said, "--histogram")
        asked.append(parse(Histogram, {"column": column, "edges": [_number(edge, f"--histogram {said}") for edge in edges],
                                       "noise_std": noise_std}, f"--histogram {said}"))
    for said in groups:
        levels = [_named(one, "--groups") for one in said.split(" x ")]
        asked.append(parse(GroupCounts, {"by": [{"column": column, "values": [_value(value) for value in values]}
                                                for column, values in levels], "noise_std": noise_std}, f"--groups {said}"))
    if not asked:
        raise ContractError("say what to count: --histogram COLUMN=EDGE,… or --groups COLUMN=VALUE,…")
    return tuple(asked)


def _named(said: str, option: str) -> tuple[str, list[str]]:
    column, is_there, listed = said.partition("=")
    if not is_there or not column.strip() or not listed.strip():
        raise ContractError(f"{option} {said}: expected a column and what it is counted by, for example 'age=20,30,40'")
    return column.strip(), [one.strip() for one in listed.split(",")]


def _number(text: str, source: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ContractError(f"{source}: '{text}' is no number") from None


def _value(text: str) -> str | int | float:
    """A value as the column may hold it: a whole number, a number or a text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _show(found: list[Finding], as_json: bool) -> None:
    from rich.table import Table

    from tasks.reporting.finding import heading, tables

    if as_json:
        print_json([_as_json(finding) for finding in found])
        return
    for finding in found:
        out.say("[bold]{}[/]", heading(finding))
        for one in tables(finding.totals):
            table = Table(*one.head[:-2], title=one.title)
            for column in one.head[-2:]:
                table.add_column(column, justify="right")
            for cell in one.cells:
                table.add_row(*cell.texts)
            out.print(table)
        for what, sites in (("refused", [f"{no.site} ({no.reason})" for no in finding.refusals]),
                            ("not admitted", [f"{no.site}: {no.reason}" for no in finding.rejected]),
                            ("no answer", list(finding.missing))):
            if sites:
                out.say("[yellow]{}[/] {}", what, ", ".join(sites))
    out.print("[dim]± is how far the noise may have moved a count: 95 of 100 exact counts lie within it.[/]")


def _as_json(finding: Finding) -> dict[str, Any]:
    from dataclasses import asdict

    from tasks.reporting.finding import tables

    return {**finding.model_dump(mode="json"), "tables": [asdict(one) for one in tables(finding.totals)]}
