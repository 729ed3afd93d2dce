"""Answers on the terminal and as files, and what a question would cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedround.errors import ContractError
from fedround.spoken import how_many
from fedround_cli.output import out, print_json

if TYPE_CHECKING:
    from fedround.analytics.compiled import Compiled
    from fedround.analytics.estimates import Table
    from fedround.records import Finding
    from fedround.statistics import Release
    from tasks.ask import MeasurementRequest
    from tasks.coordinator import Coordinator
    from tasks.questions import Preview

_BAR, _SHORT_BAR, _NARROW = 24, 8, 80


def show_answers(coordinator: Coordinator, read: Callable[[Sequence[Release]], list[Table]], finding: Finding,
                 page: Path | None, *, each: bool, as_json: bool) -> None:
    """All sites together, with `each` every site, too; and the page, if one is wanted."""
    from tasks.questions import EVERYBODY, answers, by_site
    from tasks.reporting.answers import as_json as in_json

    wanted = each or page is not None
    sites = by_site(coordinator.store, finding, coordinator.key) if wanted else {}
    by_whom = answers(read, finding, sites)
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
            show_tables([one for one in tables if one.estimates])
    _foot()
    if page is not None:
        out.say("written: {}", page)


def check_page(page: Path) -> None:
    """Raises ContractError if no page can be written there: before anybody is asked, and charged."""
    if page.suffix.lower() not in {".html", ".csv", ".json"}:
        raise ContractError(f"--page {page}: expected a name that ends in .html, .csv or .json")
    if not page.parent.is_dir():
        raise ContractError(f"--page {page}: there is no folder {page.parent}; make it, or name another one")


def _write(page: Path, finding: Finding, by_whom: dict[str, list[Table]]) -> None:
    import json

    from fedround.files import write_whole
    from tasks.reporting import answers
    from tasks.reporting.finding import as_csv

    made = {".html": lambda: answers.render_answers(f"Questions of run {finding.run}", finding, by_whom),
            ".csv": lambda: as_csv(by_whom), ".json": lambda: json.dumps(answers.as_json(by_whom), indent=1)}
    write_whole(page, made[page.suffix.lower()]().encode(), durable=False)


def show_all(found: list[Finding], *, as_json: bool) -> None:
    """Findings, each with what everybody would read in it first."""
    from tasks.questions import EVERYBODY
    from tasks.reporting.answers import as_json as in_json
    from tasks.reporting.finding import tables

    if as_json:
        print_json([{**one.model_dump(mode="json"), "tables": in_json({EVERYBODY: tables(one.totals)})} for one in found])
        return
    for one in found:
        _head(one)
        show_tables(tables(one.totals))
    _foot()


def _head(finding: Finding) -> None:
    from tasks.reporting.finding import heading

    out.say("[bold]{}[/]", heading(finding))
    for what, sites in (("refused", [f"{no.site} ({no.reason})" for no in finding.refusals]),
                        ("not admitted", [f"{no.site}: {no.reason}" for no in finding.rejected]),
                        ("no answer", list(finding.missing))):
        if sites:
            out.say("[yellow]{}[/] {}", what, ", ".join(sites))


def show_tables(tables: list[Table]) -> None:
    """Tables, with bars where they read well."""
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
        for note in one.notes:
            out.say("[dim]{}[/]", note)


def _bars(table: Table) -> list[str]:
    """A bar for each number, where that reads well."""
    largest = max((one.value for one in table.estimates if one.value == one.value), default=0.0)
    if table.plot != "bars" or len(table.estimates) < 3 or largest <= 0:
        return []
    longest = _SHORT_BAR if out.width < _NARROW else _BAR
    return ["█" * round(longest * max(one.value, 0) / largest) if one.value == one.value else "" for one in table.estimates]


def _foot() -> None:
    out.print("[dim]95 %: of 100 exact numbers, 95 lie within. The interval is about the noise alone, where no "
              "line below the table says more.[/]")


def show_preview(coordinator: Coordinator, request: MeasurementRequest, asked: Compiled, records: int | None, *,
             as_json: bool) -> None:
    """What it would cost and how exact it would be."""
    from dataclasses import asdict

    from tasks.ask import known
    from tasks.questions import preview

    told = preview(coordinator, request.run, [asked.statistics] if known(coordinator, request) is None else [])
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
    say_cost(told)


def show_expected(told: Preview, steps: int, tables: Sequence[Table], noise_std: float, *, as_json: bool) -> None:
    """What a regression would cost in all its rounds, and how exact it would be."""
    from dataclasses import asdict

    if as_json:
        print_json({**asdict(told), "fits": told.fits, "steps": steps, "noise_std": noise_std, "expected_error": {
            one.words[0]: None if one.high != one.high else (one.high - one.low) / 2
            for table in tables[:1] for one in table.estimates}})
        return
    from rich.table import Table as Drawn

    from tasks.reporting.finding import NOTHING

    out.say("{} at noise {}, of which {} are still to be asked; nobody is asked yet", how_many(steps, "round"),
            f"{noise_std:g}", told.rounds)
    for table in tables[:1]:
        drawn = Drawn(table.head[0], "off by about (95 %)", title=table.title)
        for one in table.estimates:
            drawn.add_row(one.words[0], NOTHING if one.high != one.high else f"{(one.high - one.low) / 2:.2g}")
        out.print(drawn)
    if tables:
        out.print("[dim]for noise and sampling, if numbers were bell-shaped with bounds three standard deviations away, and "
                  "one in four had each value and the outcome; more where columns say the same[/]")
    else:
        out.print("[dim]how exact: say with --records of about how many records[/]")
    say_cost(told)


def say_cost(told: Preview) -> None:
    """The price, beside what the run has spent and promises."""
    from fedround.privacy.profile import upward

    if told.promised is None:
        out.print("the federation promises nothing: no cost is counted")
        return
    if told.rounds == 0:
        out.say("all of this was asked before: to ask again costs nothing; the run's questions have spent {} of {}",
                upward(told.before, 3), f"{told.promised:g}")
        return
    out.say("costs one {} at each site epsilon {} at delta {}; the run's questions have spent {}, and would have spent "
            "{} of {}", told.unit, upward(told.epsilon, 3), f"{told.delta_dp:g}", upward(told.before, 3),
            upward(told.after, 3), f"{told.promised:g}")
    if not told.fits:
        out.print("[yellow]that is more than the run promises, and sites refuse it: ask for more noise, or less[/]")
    out.print("[dim]what a site's ledger has left, and its policy allows, only the site knows[/]")
