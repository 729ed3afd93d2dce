"""fedround models bundle, promote, rollback, stages: from a committed round to a model in use."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedround.errors import ContractError
from fedround.spoken import typed
from fedround_cli.compare_groups import compare_groups
from fedround_cli.folders import DEFAULT_COORDINATOR, CoordinatorFolder
from fedround_cli.output import AsJson, command, out, print_json

if TYPE_CHECKING:
    from fedround.promotion import Stage
    from tasks.coordinator import Coordinator
    from tasks.promote import Proposal

Tag = Annotated[str, typer.Argument(help="A committed round, as `models list` shows it: spring/round-00020.")]


@command
def bundle(
    tag: Tag,
    destination: Annotated[Path, typer.Argument(help="File to write, for example spring.zip.")],
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    rows: Annotated[Path | None, typer.Option(
        help="Public rows, if there is no public test set: they show which columns the model needs.")] = None,
) -> None:
    """Write a model with all that it needs elsewhere: recipe, ONNX, card, certificate; signed.

    The model's history is proven first, and its ONNX form is compared with the model on 10,000 rows. The bundle is not
    approved yet: `models promote` asks a person.
    """
    from fedround.files import write_whole
    from flows.service import enter
    from tasks.bundle import build

    run, number = parsed(tag)
    body = build(enter(folder), run, number, None if rows is None else rows.resolve())
    write_whole(destination, body, durable=True)
    out.say("{} is in {} ({} bytes); use it: fedround predict {} rows.csv -o scores.csv", tag, destination, f"{len(body):,}",
            typed(destination))


@command
def promote(
    tag: Tag,
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    yes: Annotated[bool, typer.Option("--yes", help="Say yes here, not in the UI, if the policy's bounds are met.")] = False,
    by: Annotated[str | None, typer.Option(help="The name of who says yes. The model's card shows it.")] = None,
    note: Annotated[str, typer.Option(help="Why.")] = "",
    as_json: AsJson = False,
) -> None:
    """Put a model into production: the bounds of promotion.toml first, then a person's yes in the Prefect UI, or here.

    Without --yes the coordinator's process does it. It waits in the UI for any length of time, also across restarts.
    """
    from flows.service import enter
    from tasks.promote import PromotionRequest, approve, propose

    coordinator, (run, number) = enter(folder), parsed(tag)
    if not yes:
        from flows.service import start

        started = asyncio.run(start(coordinator, "federated-promotion", {"run": run, "round": number}))
        out.say("asked: look at the model, and say yes or no, at {}", started.url)
        return
    if not by:
        raise ContractError("--yes needs --by NAME: who says yes stands in the model's card")
    from fedround.bundle import Approval
    from fedround.values import parse

    approval = parse(Approval, {"by": by, "through": "command line", "note": note}, "approval")
    compare_groups(coordinator, run, number)
    proposal = propose(coordinator, PromotionRequest(run=run, round=number))
    if proposal.version is None:
        raise ContractError(proposal.refusal())
    version = approve(coordinator, proposal.version, approval)
    if as_json:
        print_json({"version": version, "stage": "production", "judged": [one.model_dump() for one in proposal.judged]})
        return
    _show(proposal)
    out.say("{} is [bold]{}[/], in production; {} said yes", tag, version, by)


@command
def rollback(
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    stage: Annotated[str, typer.Option(help="candidate or production.")] = "production",
) -> None:
    """Put back the model that was promoted to a stage before the present one. Nothing is deleted."""
    from flows.service import enter
    from tasks.promote import roll_back

    version = roll_back(enter(folder), _stage(stage))
    out.say("{} is in {} again", version, stage)


@command
def stages(folder: CoordinatorFolder = DEFAULT_COORDINATOR, as_json: AsJson = False) -> None:
    """Show which model is in which stage, and all earlier promotions."""
    from rich.table import Table

    from flows.service import enter
    from tasks.promote import read_decision, stages_of

    coordinator = enter(folder)
    history = stages_of(coordinator).history()
    current = {one.stage: one for one in history}
    decisions = {one.version: read_decision(coordinator, one.version) for one in history}
    if as_json:
        print_json({"stages": {stage: one.version for stage, one in current.items()}, "history": [
            {"stage": one.stage, "version": one.version, "when": one.when,
             **decisions[one.version].model_dump(mode="json", include={"run", "round", "bundle", "approval"})}
            for one in history]})
        return
    if not history:
        out.print("no model is in a stage yet: [bold]fedround models promote RUN/round-00001[/] asks for one")
        return
    table = Table("stage", "version", "round", "since", "approved by")
    for one in reversed(history):
        decision = decisions[one.version]
        shown = one.stage if current[one.stage] is one else f"{one.stage}, before"
        table.add_row(shown, one.version, decision.tag, one.when, "" if decision.approval is None else decision.approval.by)
    out.print(table)


def resolved(coordinator: Coordinator, name: str) -> bytes:
    """The bundle that a stage, a version or a committed round names."""
    from tasks.bundle import build
    from tasks.promote import stages_of

    stages = stages_of(coordinator)
    if name in ("candidate", "production"):
        now = stages.current(_stage(name))
        if now is None:
            raise ContractError(f"nothing is in {name}: 'fedround models promote' puts a model there")
        return stages.bundle(now.version)
    if name.startswith("v") and "/" not in name:
        return stages.bundle(name)
    return build(coordinator, *parsed(name))


def parsed(tag: str) -> tuple[str, int]:
    """The run and the round of a tag of the model store."""
    run, between, number = tag.partition("/round-")
    if not between or not number.isdecimal():
        raise ContractError(f"'{tag}' is not a committed round: expected for example spring/round-00020; 'fedround models "
                            "list' shows them")
    return run, int(number)


def _stage(name: str) -> Stage:
    if name not in ("candidate", "production"):
        raise ContractError(f"there is no stage '{name}': expected candidate or production")
    return name  # type: ignore[return-value]


def _show(proposal: Proposal) -> None:
    for one in proposal.judged:
        out.say("[green]✓[/] {}", one)
