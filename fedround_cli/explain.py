"""fedround models explain: whether a model's chances are what they say, what thresholds cost, which columns matter."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from fedround_cli.folders import DEFAULT_COORDINATOR, CoordinatorFolder
from fedround_cli.output import AsJson, command, out, print_json
from fedround_cli.promotion import Tag, parsed

if TYPE_CHECKING:
    from tasks.coordinator import Coordinator


@command
def explain(
    tag: Tag,
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    at_sites: Annotated[bool, typer.Option(
        "--at-sites", help="Also ask the sites which columns matter on rows that they hold out: noised, and charged to their "
        "ledgers. What was asked before is read again.")] = False,
    columns: Annotated[list[str] | None, typer.Option(
        "--column", help="With --at-sites: about this column only; repeatable. The noise on an answer grows with the root of "
        "one more than the columns. Default: all that the recipe needs.")] = None,
    noise: Annotated[float | None, typer.Option(
        help="With --at-sites: standard deviation of each site's noise; one record counts 1. Default: as for scores, by the "
        "federation file.")] = None,
    asker: Annotated[str | None, typer.Option(help="With --at-sites: who asks; a site's policy may name who may.")] = None,
    missed: Annotated[float, typer.Option(
        help="What a missed row with label 1 costs, where a false alarm costs 1.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Say how a model decides about the public test set: calibration, thresholds with costs, the columns that matter.

    Without --at-sites no site is asked, and no privacy is spent. It is put into the round's page, too.
    """
    from rich.table import Table

    from flows.service import enter
    from tasks.explain import explained, tell
    from tasks.reporting.contribution import added
    from tasks.reporting.explained import HEAD, HEAD_AT_SITES, chosen, of_costs, said_of, told_by_sites

    run, number = parsed(tag)
    coordinator = enter(folder)
    if at_sites:
        ask_sites(coordinator, run, number, noise, columns or (), asker, quiet=as_json)
    found = explained(coordinator, run, number, missed)
    tell(coordinator, run, found)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    if found.reliability is not None:
        table = Table("the model said", "it was true of", "rows", title="calibration")
        for held in found.reliability.bins:
            table.add_row(f"{held.predicted:.3f}", str(held.observed), str(held.rows))
        out.print(table)
    if lines := chosen(found):
        costs = Table(*HEAD, title="thresholds")
        for place, line in enumerate(lines):
            costs.add_row(*line, style="bold" if place == len(lines) - 1 else "")
        out.print(costs)
    out.say("{}", of_costs(found))
    shuffled = Table("column", "loss if shuffled", "±", "", "mean |SHAP|", title="columns")
    strength = {one.column: one.strength for one in found.pulls}
    most = max((abs(one.value) for one in found.importance), default=0.0)
    for one in found.importance:
        bar = "█" * round(20 * max(0.0, one.value) / (most or 1.0))
        shuffled.add_row(one.column, added(one.value), f"{one.std:.4f}", bar, f"{strength[one.column]:.4f}")
    out.print(shuffled)
    if lines := told_by_sites(found):
        told = Table(*HEAD_AT_SITES, title="columns at the sites")
        for line in lines:
            told.add_row(*line)
        out.print(told)
    out.say("{}", said_of(found))


def ask_sites(coordinator: Coordinator, run: str, number: int, noise: float | None, columns: Sequence[str],
              asker: str | None, *, quiet: bool) -> None:
    """Ask the sites about the columns, unless they were asked the same before."""
    from fedround_cli import campaign
    from tasks.ask import known
    from tasks.importance import question

    noise_std = coordinator.federation.evaluation.noise_std if noise is None else noise
    request = question(coordinator, run, number, noise_std, columns, asker)
    if known(coordinator, request) is None:
        asyncio.run(campaign.show_campaign(coordinator, "federated-measurement",
                                           request.model_dump(mode="json", exclude_none=True), quiet=quiet))
