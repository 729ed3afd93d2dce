"""fedround join: two members learn together from columns of the same customers."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from fedround_cli.folders import DEFAULT_COORDINATOR, CoordinatorFolder
from fedround_cli.output import AsJson, Deadline, command, out, print_json
from fedround_cli.requests import checked


@command
def join(
    labels: Annotated[str, typer.Argument(help="The site that has the labels.")],
    features: Annotated[str, typer.Argument(help="The site that has other columns of the same customers.")],
    purpose: Annotated[str, typer.Option("--for", metavar="PURPOSE", help="What it is for, as both policies name it.")],
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    run: Annotated[str, typer.Option("--run", "-r", help="The run in which the steps are kept.")] = "joined",
    epsilon: Annotated[float, typer.Option(min=0.01, max=20, help="What each label pays: it is told by a coin.")] = 2.0,
    levels: Annotated[int, typer.Option(min=2, max=256, help="How many values a score may have.")] = 64,
    score: Annotated[bool, typer.Option(
        "--score", help="Learn nothing: bring scores of the customers that the first site has named with 'fedround predict "
                        "--with'.")] = False,
    anew: Annotated[bool, typer.Option(
        "--anew", help="Make another exchange, though one was made: sites refuse it unless policies grant several.")] = False,
    deadline_s: Deadline = None,
    as_json: AsJson = False,
) -> None:
    """Find the customers whom both sites have, bring randomised labels to the one and scores to the other. No row moves.

    Which customers both have is told to both, and to nobody else; no epsilon is about it. Both policies must grant it by
    peer, purpose, number and day. Run again, an exchange that stopped goes on.
    """
    from fedround_cli.campaign import show_campaign
    from flows.service import enter
    from tasks.joins import JoinRequest, check_two_members

    coordinator = enter(folder)
    request = checked(JoinRequest, {
        "run": run, "labels": labels, "features": features, "purpose": purpose, "label_epsilon": epsilon, "levels": levels,
        "score": score, "anew": anew, "deadline_s": deadline_s})
    check_two_members(coordinator, request)
    asked = request.model_dump(mode="json", exclude_none=True)
    asyncio.run(show_campaign(coordinator, "federated-join", asked, quiet=as_json))
    if as_json:
        print_json({"run": run, "labels": labels, "features": features, "purpose": purpose})
        return
    out.say("'{}' and '{}' have done their parts for '{}': '{}' predicts with 'fedround predict {} ROWS --with {}'",
            labels, features, purpose, labels, purpose, features)
