"""fedround contract: a first data contract from a sample, what rows make of one, and what changed between two."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedround.spoken import how_many
from fedround_cli.output import AsJson, command, out, print_json
from fedround_cli.terminal import styled

if TYPE_CHECKING:
    from validation.checking import Checked
    from validation.inferring import Inferred

app = typer.Typer(no_args_is_help=True, help="Data contracts: what rows must look like. Runs on this machine; sends nothing.")

Rows = Annotated[list[Path], typer.Argument(help="Rows: .parquet or .csv files, folders of parts, each a table of its own.")]
ContractPath = Annotated[Path, typer.Argument(help="A data contract (.json).")]


@app.command("infer")
@command
def infer_contract(
    rows: Annotated[list[Path] | None, typer.Argument(help="Rows: .parquet or .csv files, folders of parts.")] = None,
    recipe: Annotated[Path | None, typer.Option(
        help="Instead of rows: say what the COLUMNS of this recipe say. It runs here: only one that you have read.")] = None,
    destination: Annotated[Path, typer.Option("--out", "-o", help="The contract to write.")] = Path("contract.json"),
    target: Annotated[str | None, typer.Option(help="The column of labels.")] = None,
    without: Annotated[list[str], typer.Option(help="A column to say nothing of; once for each.")] = [],  # noqa: B006
    name: Annotated[str | None, typer.Option(help="The contract's name; without it, the file's or folder's.")] = None,
    most_values: Annotated[int, typer.Option(min=2, max=1000, help="List a column's values if there are no more.")] = 20,
    rows_each: Annotated[int, typer.Option(min=2, help="A listed value is held by so many rows at least.")] = 10,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a first contract that rows like these meet. Read it, correct it, and only then share it.

    It comes from these rows. Bounds are moved outward and rounded, and a value is listed only if many rows hold it, so that
    no row's own value stands in it. Still, it tells roughly where their extremes lie: take rows that may be shown, or replace
    the bounds by what everybody knows. A contract holds for all sites, whose rows may be unlike these.

    A recipe with COLUMNS says its bounds and lists itself: `--recipe recipe.py` makes checks of them, without a row. They
    only warn, since such a recipe has a place for what lies outside.
    """
    from fedround.errors import ContractError
    from fedround.files import write_whole
    from validation.inferring import as_text, infer
    from validation.row_parts import name_after, row_files

    if destination.exists() and not force:
        raise ContractError(f"{destination} exists: name another file with --out, or replace it with --force")
    if (rows is None) == (recipe is None):
        raise ContractError("a contract is made of rows, or of a recipe's COLUMNS: name files of rows, or --recipe FILE")
    if recipe is not None:
        _of_recipe(recipe, destination, name, as_json=as_json)
        return
    rows = rows or []
    called = name or name_after(rows[0])
    found = infer([row_files(one) for one in rows], called, target=target, without=without, most_values=most_values,
                  rows_each=rows_each)
    write_whole(destination, as_text(found.contract).encode(), durable=False)
    if as_json:
        print_json({"out": str(destination), "rows": found.rows, "checks": len(found.contract.checks), "notes": found.notes,
                    "columns": [{"column": column, "kind": kind, "says": says} for column, kind, says in found.columns]})
        return
    _show_inferred(found, destination)


def _of_recipe(recipe: Path, destination: Path, name: str | None, *, as_json: bool) -> None:
    from fedround.errors import ContractError
    from fedround.files import write_whole
    from fedround.learning.recipe import load_recipe
    from validation.column_checks import contract_of
    from validation.inferring import as_text

    loaded = load_recipe(recipe)
    declared = loaded.declared
    if declared.columns is None:
        raise ContractError(f"recipe {recipe.name}: has no COLUMNS, which say what rows must look like; name files of rows "
                            "instead")
    contract, no_room = contract_of(declared.columns.columns, declared.target_columns, name or loaded.name)
    write_whole(destination, as_text(contract).encode(), durable=False)
    if as_json:
        print_json({"out": str(destination), "checks": len(contract.checks), "no_room": no_room})
        return
    out.say("{} in {}, made of the COLUMNS of {}" + (f"; {no_room} found no room" if no_room else ""),
            how_many(len(contract.checks), "check"), destination, recipe)


def _show_inferred(found: Inferred, destination: Path) -> None:
    from rich.table import Table

    table = Table("column", "holds", "what the contract says", title=f"contract '{found.contract.name}'")
    for line in found.columns:
        table.add_row(*line)
    out.print(table)
    for note in found.notes:
        out.say("[yellow]![/] {}", note)
    out.say("{} in {}, made from these {}. The bounds are rounded outward, and no value stands in it that few "
            "rows hold; still, it tells roughly where their extremes lie. Read and correct it before you share it.",
            how_many(len(found.contract.checks), "check"), destination, how_many(found.rows, "row"))


@app.command("check")
@command
def check_contract(contract: ContractPath, rows: Rows, as_json: AsJson = False) -> None:
    """Judge rows by a contract, as a site does: each check, how many rows fail it, and what follows.

    Exit code 0 if nothing fails but what only warns, 1 otherwise. The files may be larger than memory.
    """
    from validation.checking import check_rows
    from validation.contract import load_contract
    from validation.row_parts import row_files

    agreed = load_contract(contract)
    found = check_rows([row_files(one) for one in rows], agreed)
    if as_json:
        print_json({"contract": agreed.name, "digest": agreed.digest, "rows": found.rows, "left_out": found.left_out,
                    "holds": found.holds, "checks": [
                        {"id": one.check.id, "severity": one.check.severity, "about": one.about, "holds": one.holds,
                         "failing": one.failing} for one in found.results]})
    else:
        _show_checked(found, agreed.name)
    if not found.holds:
        raise typer.Exit(1)


def _show_checked(found: Checked, contract: str) -> None:
    from rich.table import Table

    from validation.contract_diff import about

    table = Table("", title=f"contract '{contract}' on {how_many(found.rows, 'row')}")
    table.add_column("check")
    if wide := out.width >= _WIDE:
        table.add_column("about")
    for name in ("judges", "severity"):
        table.add_column(name)
    table.add_column("rows failing" if wide else "failing", justify="right")
    for one in found.results:
        sign = "[green]✓[/]" if one.holds else "[yellow]![/]" if one.check.severity == "warning" else "[bold red]✗[/]"
        table.add_row(styled(sign), one.check.id, *([about(one.check)] if wide else []), _JUDGES[one.about],
                      one.check.severity, f"{one.failing:,}" if one.failing else "")
    out.print(table)
    failed = [one for one in found.results if not one.holds]
    warned, total = sum(one.check.severity == "warning" for one in failed), len(found.results)
    out.say("{} of {} hold{}; {} of {} would count for nothing", total - len(failed), how_many(total, "check"),
            f", {warned} of the others only warn" if warned else "", f"{found.left_out:,}", how_many(found.rows, "row"))
    for kind in sorted({one.about for one in failed if one.check.severity == "error"}):
        out.say("[bold red]✗[/] {}", _FOLLOWS[kind])


_JUDGES = {"form": "columns", "rows": "each row", "tables": "all rows"}
_WIDE = 80
_FOLLOWS = {"form": "columns: a site with such files refuses every round",
            "rows": "each row: a row that fails counts for nothing",
            "tables": "all rows: only the site's operator is told"}


@app.command("diff")
@command
def diff_contracts(before: ContractPath, after: ContractPath, as_json: AsJson = False) -> None:
    """Say what changed between two contracts: what was added, removed, loosened and tightened."""
    from rich.table import Table

    from validation.contract import load_contract
    from validation.contract_diff import changes

    old, new = load_contract(before), load_contract(after)
    found = changes(old, new)
    if as_json:
        print_json({"before": old.digest, "after": new.digest, "changes": [asdict(one) for one in found]})
        return
    if found:
        table = Table("", "check", "about", "what", title=f"from {before} to {after}")
        for one in found:
            table.add_row(one.kind, one.id, one.about, one.words)
        out.print(table)
    told = ", ".join(f"{count} {kind}" for kind, count in Counter(one.kind for one in found).items())
    out.say("{}", told if found else "the same file" if old.digest == new.digest else "the same checks, in other bytes")
    if old.digest != new.digest:
        out.say("Every site has to approve the new file: 'fedround site approve'")
