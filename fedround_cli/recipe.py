"""fedround recipe: a first recipe from a table, and what a recipe makes of rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedround.spoken import how_many, typed
from fedround_cli.output import AsJson, command, out, print_json

if TYPE_CHECKING:
    from fedround.agreement import Agreement
    from fedround.learning.columns import Column
    from validation.drafting import Draft, Kind

app = typer.Typer(no_args_is_help=True, help="""Recipes: what is learnt, as one Python file. They run here; nothing is sent.

`new` writes a first one for a table, `check` says what a recipe makes of rows, `client` names code of another product.""")

FILES = ("recipe.py", "contract.json", "settings.toml")


@app.command("new")
@command
def new_recipe(
    rows: Annotated[list[Path], typer.Argument(help="Rows that may be shown: .parquet or .csv files, or folders of parts.")],
    target: Annotated[str | None, typer.Option(help="The column of what is learnt.")] = None,
    task: Annotated[str | None, typer.Option(
        metavar="KIND", help="classify (labels), count (visits, amounts: from 0 up), or regress (numbers). Default: what "
        "the target's values look like.")] = None,
    time: Annotated[str | None, typer.Option(help="Survival: the column of how long each was observed.")] = None,
    event: Annotated[str | None, typer.Option(help="Survival: the column that says whether the event was seen.")] = None,
    folder: Annotated[Path, typer.Option("--out", "-o", help="The folder to write into.")] = Path(),
    without: Annotated[list[str], typer.Option(help="A column to leave out; once for each.")] = [],  # noqa: B006
    name: Annotated[str | None, typer.Option(help="The recipe's name; without it, the file's or folder's.")] = None,
    levels: Annotated[int, typer.Option(min=2, max=1000, help="The most values of a category that are listed.")] = 20,
    rows_each: Annotated[int, typer.Option(min=2, help="A listed value is held by so many rows at least.")] = 10,
    force: Annotated[bool, typer.Option("--force", help="Replace files.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a first recipe, data contract and settings for a table. They run at once; read them before anybody agrees.

    * `fedround recipe new rows.parquet --target ill -o ill`: writes `ill/recipe.py`, `contract.json`, `settings.toml`
    * `fedround recipe check ill/recipe.py rows.parquet`: what the recipe makes of rows
    * `fedround simulate ill --data rows.parquet --sites 5`: how good a federation of five sites would be

    Numbers get bounds, texts and codes a list of values, gaps a place of their own; no code encodes rows. Columns that look
    like names or numbers of records, and days, are left out, with the reason beside them. What is learnt follows from the
    target: labels, counts of something, or other numbers.

    Bounds and lists come from these rows, moved outward and rounded, and no value is listed that few rows hold. But all
    members see them. **They must be public knowledge**: put what everybody knows in their place, and take no rows that are
    secret.
    """
    from fedround.errors import ContractError
    from fedround.files import write_whole
    from validation.column_checks import contract_of
    from validation.drafting import draft
    from validation.first_files import recipe_text, settings_text
    from validation.inferring import as_text
    from validation.row_parts import name_after, row_files

    kind, targets = _asked(task, target, time, event)
    if (there := [one for one in FILES if (folder / one).exists()]) and not force:
        raise ContractError(f"{folder / there[0]} exists: name another folder with --out, or replace it with --force")
    called = name or name_after(rows[0])
    found = draft([row_files(one) for one in rows], targets, kind=kind, without=without, levels=levels, rows_each=rows_each)
    contract, no_room = contract_of(found.columns, found.targets, called)
    texts = (recipe_text(found, called, rows[0].name), as_text(contract), settings_text(called, found.rows))
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in zip(FILES, texts, strict=True):
        write_whole(folder / file, text.encode(), durable=False)
    notes = [*found.notes, *([f"a contract has no room for {no_room} of the checks: bounds and lists are left out"]
                             if no_room else [])]
    if as_json:
        print_json(_as_json(found, called, folder, notes))
        return
    _show(found, called, folder, rows[0], notes)


def _asked(task: str | None, target: str | None, time: str | None, event: str | None) -> tuple[Kind | None, list[str]]:
    from fedround.errors import ContractError
    from validation.drafting import KINDS

    kind = next((one for one in KINDS if one == task), None)
    if task is not None and kind is None:
        raise ContractError(f"--task must be one of {', '.join(KINDS)}")
    if (time is None) != (event is None) or (time is not None and (target is not None or kind not in {None, "survive"})):
        raise ContractError("survival needs --time and --event, both, and no --target")
    if time is not None and event is not None:
        return "survive", [time, event]
    if kind == "survive" or target is None:
        raise ContractError("survival needs --time and --event" if kind == "survive" else
                            "what is to be learnt? Name its column: --target COLUMN (or --time and --event, for survival)")
    return kind, [target]


def _as_json(found: Draft, name: str, folder: Path, notes: list[str]) -> dict[str, Any]:
    return {"name": name, "files": [str(folder / file) for file in FILES], "rows": found.rows, "task": found.kind,
            "targets": [one.model_dump() for one in found.targets], "columns": [
                {**one.model_dump(), "why": found.why[one.column]} for one in found.columns],
            "left_out": found.left_out, "notes": notes}


def _show(found: Draft, name: str, folder: Path, rows: Path, notes: list[str]) -> None:
    from rich.table import Table

    table = Table("column", "becomes", "because", title=f"recipe '{name}': what is learnt from {how_many(found.rows, 'row')}")
    for one in found.columns[:_MOST]:
        table.add_row(one.column, _becomes(one), found.why[one.column])
    if len(found.columns) > _MOST:
        table.add_row("…", f"and {len(found.columns) - _MOST} more", "")
    for column, why in list(found.left_out.items())[:_MOST]:
        table.add_row(column[:60], "left out", why)
    for one in found.targets:
        table.add_row(one.column, "is learnt", _LEARNT[found.kind])
    out.print(table)
    for note in notes:
        out.say("[yellow]![/] {}", note)
    out.say("wrote {}. Bounds and lists in them must be public knowledge: read the files, and put what everybody knows in "
            "the place of what these rows hold.", ", ".join(str(folder / file) for file in FILES))
    out.say("next: fedround recipe check {} {}; fedround simulate {} --data {}", typed(folder / FILES[0]), typed(rows),
            typed(folder), typed(rows))


def _becomes(one: Column) -> str:
    from fedround.learning.columns import Category, Numeric

    if isinstance(one, Numeric):
        return f"{one.low:,g} to {one.high:,g}" + (", by its logarithm" if one.scale == "log" else "")
    if isinstance(one, Category):
        shown = ", ".join(map(str, one.values[:_SHOWN]))
        return f"one of {shown}" + (f", … ({len(one.values)})" if len(one.values) > _SHOWN else "")
    return one.holds


@app.command("check")
@command
def check_recipe(
    recipe: Annotated[Path, typer.Argument(help="The recipe (.py). It runs here: only one that you have read.")],
    rows: Annotated[Path, typer.Argument(help="Rows: a .parquet or .csv file, or a folder of parts.")],
    contract: Annotated[Path | None, typer.Option(
        help="The data contract it goes with. Default: contract.json beside the recipe, if there is one.")] = None,
    settings: Annotated[Path | None, typer.Option(
        help="settings.toml. Default: the one beside the recipe; without one, privacy of single records.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a recipe makes of rows: features, labels, rows that count for nothing; and try its model on made-up rows.

    Also where COLUMNS and the contract differ. Exit code 1 if a site with such rows could not train. Read the table: an age
    that is always missing, or a value that is always "other", is a mistake that no check knows of.
    """
    from fedround.learning.recipe import load_recipe
    from fedround_cli.site_picture import show_features
    from site_workers.picture import names_of, side_of
    from tasks.trial import differ, try_rows

    loaded = load_recipe(recipe)
    found, notes = try_rows(recipe, loaded, rows, _agreed(settings, recipe))
    beside = contract or (recipe.parent / "contract.json" if (recipe.parent / "contract.json").exists() else None)
    others = () if beside is None else differ(recipe, beside)
    side, names = side_of(found, loaded.task), names_of(loaded)
    if as_json:
        print_json({"recipe": loaded.name, "digest": loaded.digest, "rows": side.rows, "count_for_nothing": side.idle,
                    "labels": side.groups, "notes": notes, "contract_differs": others, "features": [
                        {"name": names[place] if names else None, "low": side.low[place], "high": side.high[place],
                         "zero": side.zero[place]} for place in range(len(side.low))]})
        return
    show_features({"rows": side}, names)
    for note in (*notes, *others):
        out.say("[yellow]![/] {}", note)
    out.say("[green]✓[/] the model of '{}' can be scored and trained, and each row is encoded by itself", loaded.name)


@app.command("client")
@command
def name_client(
    folder: Annotated[Path, typer.Argument(help="The folder with the client's Python files. None of them is run.")],
    client: Annotated[str, typer.Option(help="What trains: package.module:name, or an NVFLARE script's file.")],
    kind: Annotated[str, typer.Option(help="Whose interface it was written for: flower, nvflare, or function.")] = "flower",
) -> None:
    """Print what a recipe says of a client that was written for another product, with the digest of each of its files.

    * `fedround recipe client quickstart --client pytorchexample.client_app:app`
    * `fedround recipe client hello --kind nvflare --client client.py`

    Who approves the recipe approves these files. docs/foreign-clients.md says the rest.
    """
    from fedround.learning.foreign.spec import Foreign, files_of
    from fedround.values import parse

    said = parse(Foreign, {"kind": kind, "client": client, "files": files_of(folder)}, str(folder))
    lines = "".join(f'        "{name}": "{digest}",\n' for name, digest in said.files)
    typer.echo("from fedround.learning.foreign.spec import Foreign\n\n"
               f'FOREIGN = Foreign(\n    kind="{said.kind}", client="{said.client}",\n    files={{\n{lines}    }})')


def _agreed(settings: Path | None, recipe: Path) -> Agreement | None:
    from fedround_cli.world import asked_of

    file = settings or recipe.parent / "settings.toml"
    return None if settings is None and not file.exists() else asked_of(file, recipe, None, None).agreement


_MOST, _SHOWN = 40, 6
_LEARNT = {"classify": "labels (classify)", "count": "a count", "regress": "a number (regress)", "survive": "survival"}
