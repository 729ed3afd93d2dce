"""fedround models export: committed rounds for other tools."""

from __future__ import annotations

from typing import Annotated

import typer

from fedround.errors import ContractError
from fedround_cli.folders import DEFAULT_COORDINATOR, CoordinatorFolder
from fedround_cli.output import AsJson, command, err, out, print_json


@command
def export(
    run: Annotated[str, typer.Argument(help="Whose rounds.")],
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    to: Annotated[list[str] | None, typer.Option(
        help="mlflow=sqlite:///FILE, mlflow=http://…, lineage=FILE (OpenLineage), traces=FILE (OpenTelemetry). "
             "Default: 'exports' in coordinator.toml.")] = None,
    as_json: AsJson = False,
) -> None:
    """Report to other tools every committed round that they do not know yet: metrics, digests, who took part, epsilon.

    Only committed values are reported, and no text that anybody typed. An error here changes no round.
    """
    from flows.service import enter
    from tasks.exports import export as told

    coordinator = enter(folder)
    targets = tuple(to or coordinator.settings.exports)
    if not targets:
        raise ContractError("say where to with --to, or set 'exports' in coordinator.toml")
    done = told(coordinator, run, targets)
    if as_json:
        print_json(done)
    for target, what in done.items():
        kind = target.partition("=")[0]
        if isinstance(what, str):
            err.say("[bold red]fedround:[/] {}: {}", kind, what)
        elif not as_json:
            out.say("{}: {} new rounds of '{}'", kind, what, run)
    if any(isinstance(what, str) for what in done.values()):
        raise typer.Exit(1)
