"""fedround train run, fedround round run."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

import typer

from fedround_cli.folders import DEFAULT_COORDINATOR, CoordinatorFolder
from fedround_cli.output import AsJson, Deadline, command, out, print_json
from fedround_cli.requests import checked

train_app = typer.Typer(no_args_is_help=True, help="Training campaigns: many rounds.")
round_app = typer.Typer(no_args_is_help=True, help="Single rounds.")

Run = Annotated[str, typer.Option("--run", "-r", help="The campaign to continue; a new name begins a new one.")]
Quorum = Annotated[int | None, typer.Option(help="Updates that must be admitted. Default: as the federation file says.")]
Partition = Annotated[str | None, typer.Option(
    metavar="NAME", help="If the federation tells rows apart: on whose rows a new run trains, such as 2026-w48, and who "
                         "pays. Default: the last that is complete.")]
Sites = Annotated[list[str] | None, typer.Option(
    "--site", metavar="NAME", help="Ask only this member, where the federation file lets sites be chosen; several may be "
                                   "given. Default: all.")]
Epsilon = Annotated[float | None, typer.Option(
    help="Privacy target of a new run, where the federation file lets it be chosen. Default: what it says first.")]
Rule = Annotated[str | None, typer.Option(
    metavar="NAME", help="Rule of a new run, such as coordinate_median, where the federation file lets it be chosen. "
                         "Default: what it says first.")]


@train_app.command("run")
@command
def train_run(
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    run: Run = "main",
    rounds: Annotated[int, typer.Option("--rounds", "-n", min=1, help="Train until the run has this many rounds.")] = 10,
    partition: Partition = None,
    after: Annotated[str | None, typer.Option(
        metavar="RUN", help="A new run begins with the last model of this one.")] = None,
    quorum: Quorum = None,
    deadline_s: Deadline = None,
    sites: Sites = None,
    epsilon: Epsilon = None,
    rule: Rule = None,
    patience: Annotated[int | None, typer.Option(
        min=1, help="End before the last round if the mean noised score of so many rounds is above that of as many before by "
                    "no more than the noise. Default: all rounds.")] = None,
    one_run_per_site: Annotated[bool, typer.Option(
        "--one-run-per-site",
        help="One flow run per site for the whole campaign: cheaper where a site works for seconds.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a campaign and show it round by round. Ctrl-C asks it to stop; committed rounds stay; run it again to go on.

    The work is done by `fedround coordinator start` and the sites' processes; this command asks and watches.
    """
    _carry_out(folder, "federated-training", {
        "run": run, "rounds": rounds, "quorum": quorum, "deadline_s": deadline_s,
        **({"one_run_per_site": True} if one_run_per_site else {}),      # unknown to a deployment of an older version
        **({} if partition is None else {"partition": partition}), **({} if after is None else {"after": after}),
        **({"sites": sites} if sites else {}), **({} if patience is None else {"patience": patience}),
        **chosen(epsilon, rule),
    }, as_json)


@round_app.command("run")
@command
def round_run(
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    run: Run = "main",
    partition: Partition = None,
    quorum: Quorum = None,
    deadline_s: Deadline = None,
    sites: Sites = None,
    epsilon: Epsilon = None,
    rule: Rule = None,
    as_json: AsJson = False,
) -> None:
    """Run one more round of a campaign."""
    _carry_out(folder, "federated-round", {
        "run": run, "quorum": quorum, "deadline_s": deadline_s, **({} if partition is None else {"partition": partition}),
        **({"sites": sites} if sites else {}), **chosen(epsilon, rule)}, as_json)


def chosen(epsilon: float | None, rule: str | None) -> dict[str, Any]:
    """What is said of these."""
    return {key: value for key, value in (("epsilon", epsilon), ("rule", rule)) if value is not None}


def _carry_out(folder: CoordinatorFolder, flow: str, request: dict[str, Any], as_json: bool) -> None:
    from fedround_cli.campaign import show_campaign
    from flows.service import enter
    from tasks.report import records
    from tasks.requests import NextRoundRequest, TrainingRequest

    coordinator = enter(folder)
    checked(TrainingRequest if "rounds" in request else NextRoundRequest, request)
    coordinator.federation.offer.choice(request.get("epsilon"), request.get("rule"))
    since = time.time()
    asyncio.run(show_campaign(coordinator, flow, request, quiet=as_json))
    if as_json:
        print_json([record.model_dump(mode="json") for record in records(coordinator, request["run"])])
    else:
        out.print(f"{time.time() - since:.0f} s; reports in {coordinator.reports / request['run']}")
