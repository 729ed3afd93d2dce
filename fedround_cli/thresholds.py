"""fedround models thresholds: a threshold of its own for each group, and what that costs."""

from __future__ import annotations

from typing import Annotated

import typer

from fedround.errors import ContractError
from fedround_cli.folders import DEFAULT_COORDINATOR, CoordinatorFolder
from fedround_cli.output import AsJson, command, out, print_json
from fedround_cli.promotion import parsed


@command
def thresholds(
    tag: Annotated[str, typer.Argument(help="A committed round, as `models list` shows it: spring/round-00020.")],
    column: Annotated[str, typer.Argument(help="An attribute that the federation watches.")],
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    measure: Annotated[str, typer.Option(
        help="What is made equal: demographic_parity (who gets a yes), equal_opportunity (recall).")] = "demographic_parity",
    as_json: AsJson = False,
) -> None:
    """Choose thresholds with which groups get a yes equally often, on the public test set, and say what they change.

    No site is asked, and no privacy is spent. With the printed line under [groups] in the federation file, sites count
    decisions by these thresholds from then on. Whoever decides must know the attribute.
    """
    from rich.table import Table

    from flows.service import enter
    from tasks.group_thresholds import mitigation
    from tasks.reporting.groups import TITLES

    if measure not in ("demographic_parity", "equal_opportunity"):
        raise ContractError(f"--measure {measure}: expected demographic_parity or equal_opportunity")
    found = mitigation(enter(folder), *parsed(tag), column, measure)  # type: ignore[arg-type]
    if as_json:
        from dataclasses import asdict

        print_json({**asdict(found), "own": found.own.model_dump(mode="json")})
        return
    table = Table("on the public test set", "one threshold", f"own thresholds by {column}")
    for name, title in (("accuracy", "accuracy"), ("selected", "share that gets a yes")):
        table.add_row(title, *(f"{getattr(one, name):.4f}" for one in (found.before, found.after)))
    for gap, title in TITLES.items():
        table.add_row(f"gap, {title}", *(f"{one.gaps[gap]:.4f}" for one in (found.before, found.after)))
    out.print(table)
    of = ", ".join(f"{key} = {_toml(value)}" for key, value in found.own.of.model_dump(mode="json").items())
    out.say("{}", f"own = {{ of = {{ {of} }}, at = {list(found.own.at)} }}")


def _toml(value: object) -> str:
    import tomlkit

    return tomlkit.item(value).as_string()
