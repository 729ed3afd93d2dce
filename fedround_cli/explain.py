"""fedround models explain: whether a model's chances are what they say, what thresholds cost, which columns matter."""

from __future__ import annotations

from typing import Annotated

import typer

from fedround_cli.folders import DEFAULT_COORDINATOR, CoordinatorFolder
from fedround_cli.output import AsJson, command, out, print_json
from fedround_cli.promotion import Tag, parsed


@command
def explain(
    tag: Tag,
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    missed: Annotated[float, typer.Option(
        help="What a missed row with label 1 costs, where a false alarm costs 1.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Say how a model decides about the public test set: calibration, thresholds with costs, the columns that matter.

    No site is asked, and no privacy is spent. It is put into the round's page, too.
    """
    from rich.table import Table

    from flows.service import enter
    from tasks.explain import explained, tell
    from tasks.reporting.contribution import added
    from tasks.reporting.explained import HEAD, chosen, of_costs, said_of

    run, number = parsed(tag)
    coordinator = enter(folder)
    found = explained(coordinator, run, number, missed)
    tell(coordinator, run, found)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    if found.reliability is not None:
        table = Table("the model said", "it was true of", "rows", title="calibration")
        for one in found.reliability.bins:
            table.add_row(f"{one.predicted:.3f}", str(one.observed), str(one.rows))
        out.print(table)
    if lines := chosen(found):
        costs = Table(*HEAD, title="thresholds")
        for place, line in enumerate(lines):
            costs.add_row(*line, style="bold" if place == len(lines) - 1 else "")
        out.print(costs)
    out.say("{}", of_costs(found))
    columns = Table("column", "loss if shuffled", "±", "", "mean |SHAP|", title="columns")
    strength = {one.column: one.strength for one in found.pulls}
    most = max((abs(one.value) for one in found.importance), default=0.0)
    for one in found.importance:
        columns.add_row(one.column, added(one.value), f"{one.std:.4f}", "█" * round(20 * max(0.0, one.value) / (most or 1.0)),
                        f"{strength[one.column]:.4f}")
    out.print(columns)
    out.say("{}", said_of(found))
