"""fedround ask: an analyst's questions about the sites' rows, noised at the sites."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedround.errors import ContractError, FedroundError
from fedround_cli.folders import DEFAULT_COORDINATOR, AnyFolder
from fedround_cli.output import AsJson, command, out, print_json

if TYPE_CHECKING:
    from fedround.analytics.compiled import Compiled
    from fedround.analytics.estimates import Table
    from fedround.records import Finding
    from fedround.statistics import Statistic
    from tasks.ask import MeasurementRequest
    from tasks.coordinator import Coordinator
    from tasks.questions import Preview

_Many = list[str] | None
_BAR = 24


def _option(help_: str, shape: str) -> Any:
    return typer.Option(help=help_, metavar=shape)


@command
def ask(
    questions: Annotated[Path | None, typer.Argument(
        help="A file of questions (TOML or JSON); docs/analytics.md has every key. Or say them by options.",
        metavar="[FILE]")] = None,
    folder: AnyFolder = DEFAULT_COORDINATOR,
    run: Annotated[str, typer.Option(
        "--run", "-r", help="The run in which the result is kept. Use one for questions only: their cost counts against "
        "their run's epsilon.")] = "study",
    count: Annotated[bool, typer.Option("--count", help="How many records each group of --by has.")] = False,
    mean: Annotated[_Many, _option("Mean and standard deviation.", "COL=LOW:HIGH + …")] = None,
    histogram: Annotated[_Many, _option("How a column lies between edges.", "COL=EDGE,…")] = None,
    quantiles: Annotated[_Many, _option("Quartiles.", "COL=LOW:HIGH")] = None,
    top: Annotated[_Many, _option("The commonest of many values.", "COL=VALUE,…")] = None,
    missing: Annotated[_Many, _option("How often columns are empty.", "COL,…")] = None,
    correlations: Annotated[_Many, _option("Of each two columns.", "COL=LOW:HIGH + …")] = None,
    table1: Annotated[_Many, _option("The first table of a study.", "COL=LOW:HIGH + COL=VALUE,…")] = None,
    by: Annotated[str | None, _option("Groups: values, or edges after a colon.", "COL=VALUE,… x COL:EDGE,…")] = None,
    where: Annotated[_Many, _option("Only records like these; repeatable.", "'COL>=N', 'COL<N' or COL=VALUE,…")] = None,
    noise: Annotated[float | None, typer.Option(
        help="Of the noise at each site, beside one record. Default: as for scores, by the federation file.")] = None,
    error: Annotated[float | None, typer.Option(
        help="Instead: how far an answer may be off (95 %), in its own unit; with the most noise that keeps it.")] = None,
    records: Annotated[int | None, typer.Option(
        help="With --error: about how many records the smallest group has, of all sites.")] = None,
    asker: Annotated[str | None, typer.Option(help="Who asks; told to the sites, whose policy may name who may.")] = None,
    quorum: Annotated[int | None, typer.Option(help="Sites that must answer. Default: the federation file's.")] = None,
    deadline_s: Annotated[int | None, typer.Option("--deadline-s", help="Seconds that sites have to answer.")] = None,
    preview: Annotated[bool, typer.Option(
        "--preview", help="Say what it would cost and how exact it would be; ask nobody.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Ask nothing: show all that was asked in the run.")] = False,
    sites: Annotated[bool, typer.Option("--sites", help="Show each site's answer, too.")] = False,
    page: Annotated[Path | None, typer.Option("--page", help="Write the answers to this file: .html, .csv or .json.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask every site about its rows, and show what all say together. The same question costs nothing again.

    For example: `fedround ask --mean age=0:120 --by sex=1,2 --noise 10`. A site answers if its policy allows the purpose
    "measure", these statistics and their form. Its ledger is charged. The work is done by `fedround coordinator start` and
    the sites' processes; this command asks and watches.
    """
    from fedround_cli.ask_options import from_file, from_options
    from fedround_cli.membership import store_and_key
    from tasks.questions import measured

    if show:
        store, key = store_and_key(folder)
        found = measured(store, run, key)
        if not found:
            raise ContractError(f"run '{run}' has no measurement: 'fedround ask --count …' asks for one")
        _show_all(found, as_json=as_json)
        return
    said = {"count": [""] if count else [], "mean": mean, "histogram": histogram, "quantiles": quantiles, "top": top,
            "missing": missing, "correlations": correlations, "table1": table1}
    queries = (*(() if questions is None else from_file(questions)),
               *from_options({key: list(value or []) for key, value in said.items()}, by, where or [], noise, error))
    if not queries:
        raise ContractError("say what to ask: a file, or an option like --mean age=0:120 (see --help)")
    from fedround.analytics.compiled import compiled
    from flows.service import enter

    coordinator = enter(folder)
    federation = coordinator.federation
    asked = compiled(queries, len(federation.sites), records, federation.evaluation.noise_std)
    request = _request(run, quorum, deadline_s, asked.statistics, asker)
    if preview:
        _preview(coordinator, request, asked, records, as_json=as_json)
        return
    finding = _found(coordinator, request, run, as_json=as_json)
    _answer(coordinator, asked, finding, page, each=sites, as_json=as_json)


def _request(run: str, quorum: int | None, deadline_s: int | None, statistics: tuple[Statistic, ...],
             asker: str | None) -> MeasurementRequest:
    from pydantic import ValidationError

    from tasks.ask import MeasurementRequest

    try:
        return MeasurementRequest(run=run, quorum=quorum, deadline_s=deadline_s, statistics=statistics, asker=asker)
    except ValidationError as error:
        raise FedroundError("; ".join(f"{p['loc'][0]}: {p['msg'].lower()}" for p in error.errors())) from None


def _found(coordinator: Coordinator, request: MeasurementRequest, run: str, *, as_json: bool) -> Finding:
    """The answer that is there; or ask for it."""
    from fedround_cli.campaign import show_campaign
    from tasks.ask import known

    finding = known(coordinator, request)
    if finding is None:
        asyncio.run(show_campaign(coordinator, "federated-measurement", request.model_dump(mode="json", exclude_none=True),
                                  quiet=as_json))
        finding = known(coordinator, request)
    elif not as_json:
        out.print("[dim]this was asked before: nobody is asked, or charged, again[/]")
    if finding is None:
        raise FedroundError(f"the measurement ended and run '{run}' has no result of it: was another one asked meanwhile? "
                            "'fedround ask --show' lists what there is")
    return finding


# -- what is shown -----------------------------------------------------------------------------------------------------


def _answer(coordinator: Coordinator, asked: Compiled, finding: Finding, page: Path | None, *, each: bool,
            as_json: bool) -> None:
    from tasks.questions import EVERYBODY, answers, by_site
    from tasks.reporting.answers import as_json as in_json

    wanted = each or page is not None
    sites = by_site(coordinator.store, finding, coordinator.identity.key) if wanted else {}
    by_whom = answers(asked, finding, sites)
    if page is not None:
        _write(page, finding, by_whom)
    if as_json:
        print_json({**finding.model_dump(mode="json"), "tables": in_json(by_whom)})
        return
    _head(finding)
    for who, tables in by_whom.items():
        if each and who != EVERYBODY:
            out.say("[bold]{}[/]", who)
        if each or who == EVERYBODY:
            _tables(tables)
    _foot()
    if page is not None:
        out.say("written: {}", page)


def _write(page: Path, finding: Finding, by_whom: dict[str, list[Table]]) -> None:
    import json

    from fedround.files import write_whole
    from tasks.reporting import answers
    from tasks.reporting.finding import as_csv

    made = {".html": lambda: answers.render_answers(f"Questions of run {finding.run}", finding, by_whom),
            ".csv": lambda: as_csv(by_whom), ".json": lambda: json.dumps(answers.as_json(by_whom), indent=1)}
    if page.suffix not in made:
        raise ContractError(f"--page {page}: expected a name that ends in .html, .csv or .json")
    write_whole(page, made[page.suffix]().encode(), durable=False)


def _show_all(found: list[Finding], *, as_json: bool) -> None:
    from tasks.questions import EVERYBODY
    from tasks.reporting.answers import as_json as in_json
    from tasks.reporting.finding import tables

    if as_json:
        print_json([{**one.model_dump(mode="json"), "tables": in_json({EVERYBODY: tables(one.totals)})} for one in found])
        return
    for one in found:
        _head(one)
        _tables(tables(one.totals))
    _foot()


def _head(finding: Finding) -> None:
    from tasks.reporting.finding import heading

    out.say("[bold]{}[/]", heading(finding))
    for what, sites in (("refused", [f"{no.site} ({no.reason})" for no in finding.refusals]),
                        ("not admitted", [f"{no.site}: {no.reason}" for no in finding.rejected]),
                        ("no answer", list(finding.missing))):
        if sites:
            out.say("[yellow]{}[/] {}", what, ", ".join(sites))


def _tables(tables: list[Table]) -> None:
    from rich.table import Table as Drawn
    from rich.text import Text

    from tasks.reporting.finding import head, texts

    for one in tables:
        drawn, names = Drawn(title=one.title), head(one)
        for name in names[:-2]:
            drawn.add_column(name)
        for name in names[-2:]:
            drawn.add_column(name, justify="right")
        bars = _bars(one)
        if bars:
            drawn.add_column("")
        for estimate, bar in zip(one.estimates, bars or [""] * len(one.estimates), strict=True):
            drawn.add_row(*map(Text, texts(estimate)), *([Text(bar)] if bars else []))
        out.print(drawn)


def _bars(table: Table) -> list[str]:
    """A bar for each number, where that reads well."""
    largest = max((one.value for one in table.estimates if one.value == one.value), default=0.0)
    if table.plot != "bars" or len(table.estimates) < 3 or largest <= 0:
        return []
    return ["█" * round(_BAR * max(one.value, 0) / largest) if one.value == one.value else "" for one in table.estimates]


def _foot() -> None:
    out.print("[dim]95 %: of 100 exact numbers, 95 lie within. The interval is about the noise alone.[/]")


def _preview(coordinator: Coordinator, request: MeasurementRequest, asked: Compiled, records: int | None, *,
             as_json: bool) -> None:
    from dataclasses import asdict

    from tasks.questions import preview

    told = preview(coordinator, request, asked)
    sites = len(coordinator.federation.sites)
    errors = [query.expected_error(noise, sites, records) for query, noise in zip(asked.queries, asked.noise, strict=True)]
    if as_json:
        print_json({**asdict(told), "fits": told.fits, "queries": [
            {"query": query.model_dump(mode="json", exclude_defaults=True), "noise_std": noise, "expected_error": error}
            for query, noise, error in zip(asked.queries, asked.noise, errors, strict=True)]})
        return
    from rich.table import Table as Drawn

    drawn = Drawn("question", "noise at each site", "off by at most (95 %)", title="Nobody is asked yet")
    for query, noise, error in zip(asked.queries, asked.noise, errors, strict=True):
        drawn.add_row(str(getattr(query, "what", "")), f"{noise:.6g}", "known when it is answered" if error is None
                      else f"{error:.3g}")
    out.print(drawn)
    _say_cost(told)


def _say_cost(told: Preview) -> None:
    from fedround.privacy.profile import upward

    if told.promised is None:
        out.print("the federation promises nothing: no cost is counted")
        return
    out.say("costs one record at each site epsilon {} at delta {}; the run's questions have spent {}, and would have spent "
            "{} of {}", upward(told.epsilon, 3), f"{told.delta_dp:g}", upward(told.before, 3), upward(told.after, 3),
            f"{told.promised:g}")
    if not told.fits:
        out.print("[yellow]that is more than the run promises, and sites refuse it: ask for more noise, or less[/]")
    out.print("[dim]what a site's ledger has left, and its policy allows, only the site knows[/]")
