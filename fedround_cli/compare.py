"""fedround train compare: two runs side by side."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from fedround_cli.folders import DEFAULT_COORDINATOR, CoordinatorFolder
from fedround_cli.output import AsJson, command, out, print_json


@command
def compare(
    one: Annotated[str, typer.Argument(help="A run.", metavar="RUN")],
    other: Annotated[str, typer.Argument(help="The run that it is compared with.", metavar="OTHER")],
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    as_json: AsJson = False,
) -> None:
    """Two runs side by side: what each reached, what it cost, what was done differently; also as a page."""
    from dataclasses import asdict

    from tasks import pages
    from tasks.coordinator import open_coordinator
    from tasks.reporting.compare import differences, results

    reports = open_coordinator(folder).reports
    first, second = (pages.of_run(reports, run) for run in (one, other))
    reached, apart = results(first, second), differences(first[-1], second[-1])
    page = pages.write_comparison(reports, first, second)
    if as_json:
        print_json({"runs": [one, other], "results": [asdict(fact) for fact in reached],
                    "differences": [asdict(fact) for fact in apart], "page": str(page)})
        return
    table = Table("", one, other, "difference")
    for fact in (*reached, *apart):
        table.add_row(fact.what, *(Text(said) for said in (fact.one, fact.other, fact.apart)))
    out.print(table)
    out.say("the page: {}", page)
