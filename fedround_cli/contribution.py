"""fedround models contribution: what each site's update did for the models, and what it gets for that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fedround.errors import ContractError
from fedround.spoken import how_many
from fedround_cli.folders import DEFAULT_COORDINATOR, CoordinatorFolder
from fedround_cli.output import AsJson, command, err, out, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedround.contribution.payout import Account
    from fedround.contribution.said import Contribution
    from fedround.standing import Incentive

_WITH_BARS = 80
"""Columns of a terminal from which on a table has room for a picture."""


@command
def contribution(
    run: Annotated[str, typer.Argument(help="The run.")],
    which: Annotated[str, typer.Argument(metavar="[ROUND|all]", help="A round's number, or all rounds.")] = "all",
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    as_json: AsJson = False,
) -> None:
    """Say what each site's update added to the models on the public test set, as Shapley values with the noise in them.

    Parts of the cohort are recombined from the updates that are in the bucket: no site is asked, and no privacy is spent. A
    round that was not looked at before is computed (half a minute for twelve sites), signed, and put beside its
    commit, where 'fedround verify --recompute' computes it again. It feeds no weight. With [incentive] in the federation file
    the points of the run are shown, too.
    """
    from rich.progress import track

    from flows.service import enter
    from tasks.contribution import account, add, rounds_of

    coordinator = enter(folder)
    rounds = rounds_of(coordinator, run)
    chosen = rounds if which == "all" else [_number(which, rounds)]
    lost = list[int]()
    for number in track(chosen, description="rounds", console=err, transient=True, disable=as_json):
        if not add(coordinator, run, number):
            lost.append(number)
    told, accounts = account(coordinator, run, chosen[-1])
    incentive, said = coordinator.federation.incentive, [one for one in told if one.round in chosen]
    if not said:
        raise ContractError(f"what the sites of run '{run}' added cannot be said: the model has diverged")
    if as_json:
        print_json({"rounds": [one.model_dump(mode="json") for one in said],
                    "run": [one.model_dump(mode="json") for one in accounts],
                    "incentive": None if incentive is None else incentive.model_dump(mode="json")})
        return
    _show_round(said[-1])
    _show_run(accounts, told, chosen[-1], incentive)
    if lost:
        out.say("[yellow]![/] not said of {}: the model has diverged", ", ".join(f"round {number}" for number in lost))


def _number(which: str, rounds: range) -> int:
    if not which.isdecimal() or int(which) not in rounds:
        raise ContractError(f"'{which}' is no round of the run: expected a number from {rounds[0]} to {rounds[-1]}, or all")
    return int(which)


def _show_round(said: Contribution) -> None:
    from rich.table import Table

    from tasks.reporting.contribution import added, bar, end_of, interval, said_of

    drawn = ("",) if out.width >= _WITH_BARS else ()
    table = Table("site", "added", *drawn, "interval, from the noise", title=f"round {said.round} of run '{said.run}'")
    end = end_of(said)
    for one in said.sites:
        bars = [bar(one.value, one.low, one.high, end) for _ in drawn]
        table.add_row(one.site, added(one.value), *bars, interval(one.low, one.high))
    out.print(table)
    out.say("{} It feeds no weight.", said_of(said))


def _show_run(accounts: Sequence[Account], told: Sequence[Contribution], last: int, incentive: Incentive | None) -> None:
    from rich.table import Table

    from tasks.reporting.contribution import added, interval, points

    paid = () if incentive is None else ("points",)
    table = Table("site", "added", "interval", "came", *paid, title=f"{len(told)} of {how_many(last, 'round')} together")
    for one in accounts:
        table.add_row(one.site, added(one.value), interval(one.low, one.high), f"{one.came} / {one.asked}",
                      *(() if incentive is None else (points(one.points),)))
    out.print(table)
    if incentive is not None:
        out.say("{} points, by contribution (at least 0) times the share of rounds in which the update came; at least {} % "
                "of them for whoever ever came.", f"{incentive.points:,g}", f"{100 * incentive.floor:g}")
