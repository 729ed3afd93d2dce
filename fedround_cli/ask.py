"""fedround ask: an analyst's questions about the sites' rows, noised at the sites."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedround.errors import ContractError
from fedround_cli.ask_shown import check_page, show_all, show_answers, show_preview
from fedround_cli.asked import found_or_asked, request_of
from fedround_cli.folders import DEFAULT_COORDINATOR, AnyFolder
from fedround_cli.output import AsJson, Deadline, command

if TYPE_CHECKING:
    from tasks.coordinator import Coordinator

_Many = list[str] | None


class Link(StrEnum):
    """What coefficients of hazards are."""

    CLOGLOG = "cloglog"
    LOGIT = "logit"


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
    discover: Annotated[_Many, _option("The commonest texts, where nobody knows which there are.", "COL=CHARACTERS")] = None,
    missing: Annotated[_Many, _option("How often columns are empty.", "COL,…")] = None,
    correlations: Annotated[_Many, _option("Correlations of each two columns.", "COL=LOW:HIGH + …")] = None,
    table1: Annotated[_Many, _option("The first table of a study.", "COL=LOW:HIGH + COL=VALUE,…")] = None,
    components: Annotated[_Many, _option("Principal components.", "COL=LOW:HIGH + …")] = None,
    linear: Annotated[_Many, _option("Least squares.", "COL=LOW:HIGH ~ COL=LOW:HIGH + COL=VALUE…")] = None,
    survival: Annotated[_Many, _option("Curves, hazards, log-rank test.", "TIME=EDGE,… + EVENT=VALUE")] = None,
    logistic: Annotated[str | None, _option("A logistic regression, in --steps rounds.", "COL=VALUE ~ …")] = None,
    poisson: Annotated[str | None, _option("A Poisson regression, in --steps rounds.", "COL=0:HIGH ~ …")] = None,
    hazards: Annotated[str | None, _option(
        "Hazards by range of time, with columns, in --steps rounds.", "TIME=EDGE,… + EVENT=VALUE ~ …")] = None,
    link: Annotated[Link, typer.Option(
        help="With --hazards: 'cloglog' gives logarithms of hazard ratios, 'logit' of odds ratios.")] = Link.CLOGLOG,
    cox: Annotated[str | None, _option("Cox's model, without privacy only.", "TIME=EDGE,… + EVENT=VALUE ~ …")] = None,
    steps: Annotated[int, typer.Option(min=1, max=30, help="Rounds of a regression that takes several; each is paid.")] = 5,
    by: Annotated[str | None, _option("Groups: values, or edges after a colon.", "COL=VALUE,… x COL:EDGE,…")] = None,
    where: Annotated[_Many, _option("Only records like these; repeatable.", "'COL>=N', 'COL<N' or COL=VALUE,…")] = None,
    noise: Annotated[float | None, typer.Option(
        help="Standard deviation of each site's noise; one record counts 1. Default: as for scores, by the federation "
        "file.")] = None,
    error: Annotated[float | None, typer.Option(
        help="Instead: how far an answer may be off (95 %), in its own unit; with the most noise that keeps it.")] = None,
    records: Annotated[int | None, typer.Option(
        min=1, help="With --error or --preview: about how many records the smallest group has, of all sites.")] = None,
    asker: Annotated[str | None, typer.Option(help="Who asks; told to the sites, whose policy may name who may.")] = None,
    quorum: Annotated[int | None, typer.Option(help="Sites that must answer. Default: the federation file's.")] = None,
    deadline_s: Deadline = None,
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
    from fedround.analytics.compiled import compiled
    from fedround_cli.ask_models import Regression, ask_model, preview_model
    from fedround_cli.ask_options import from_file, from_options, model
    from fedround_cli.membership import store_and_key
    from tasks.questions import measured

    if show:
        store, key = store_and_key(folder)
        found = measured(store, run, key)
        if not found:
            raise ContractError(f"run '{run}' has no measurement: 'fedround ask --count …' asks for one")
        show_all(found, as_json=as_json)
        return
    said = {"count": [""] if count else [], "mean": mean, "histogram": histogram, "quantiles": quantiles, "top": top,
            "missing": missing, "correlations": correlations, "table1": table1, "components": components, "linear": linear,
            "discover": discover,
            "survival": survival}
    queries = (*(() if questions is None else from_file(questions)),
               *from_options({key: list(value or []) for key, value in said.items()}, by, where or [], noise, error))
    if page is not None:
        check_page(page)
    models = {"logistic": logistic, "poisson": poisson, "hazards": hazards, "cox": cox}
    if (formula := next(((name, text) for name, text in models.items() if text is not None), None)) is not None:
        beside = {"by": by, "error": error}
        if queries or any(beside.values()) or sum(text is not None for text in models.values()) > 1:
            raise ContractError(f"--{formula[0]} takes several rounds, so it is asked alone, and without "
                                f"--{' and --'.join(beside)}: its price is that of as many statistics as it has --steps")
        coordinator = _entered(folder, each=sites)
        std = coordinator.federation.evaluation.noise_std if noise is None else noise
        asked = Regression(model(*formula, where or [], std, link), steps, run, asker, quorum, deadline_s)
        if preview:
            preview_model(coordinator, asked, records, as_json=as_json)
            return
        ask_model(coordinator, asked, page, each=sites, as_json=as_json)
        return
    if not queries:
        raise ContractError("say what to ask: a file, or an option like --mean age=0:120 (see --help)")
    coordinator = _entered(folder, each=sites)
    federation = coordinator.federation
    several = compiled(queries, len(federation.sites), records, federation.evaluation.noise_std)
    request = request_of(run, quorum, deadline_s, several.statistics, asker)
    if preview:
        show_preview(coordinator, request, several, records, as_json=as_json)
        return
    finding = found_or_asked(coordinator, request, run, as_json=as_json)
    show_answers(coordinator, several.read, finding, page, each=sites, as_json=as_json)


def _entered(folder: Path, *, each: bool) -> Coordinator:
    """The coordinator here. Raises ContractError if each site's answer is wanted, and nobody knows one of them."""
    from flows.service import enter

    coordinator = enter(folder)
    if each and coordinator.federation.combine is not None:
        raise ContractError("--sites: in this federation answers are added up under masks, and nobody knows what one site "
                            "says; ask without it")
    return coordinator
