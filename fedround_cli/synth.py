"""fedround synth: rows that nobody has, drawn from noised tables of one and two columns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedround.errors import ContractError
from fedround.spoken import how_many
from fedround_cli.ask_shown import say_cost
from fedround_cli.asked import found_or_asked, request_of
from fedround_cli.folders import DEFAULT_COORDINATOR, AnyFolder
from fedround_cli.output import AsJson, Deadline, command, out, print_json

if TYPE_CHECKING:
    from fedround.records import Finding
    from fedround.synthetic.blueprint import Blueprint
    from fedround.synthetic.clouds import Clouds
    from fedround.synthetic.said import Synthetic
    from tasks.coordinator import Coordinator


@command
def synth(
    blueprint: Annotated[Path, typer.Argument(
        help="Columns, their public bounds and lists, and the pairs to ask for (TOML or JSON); or labels, features and "
             "bounds of what the recipe encodes. docs/synthetic.md has every key.")],
    file: Annotated[Path, typer.Argument(help="Where the rows go: .parquet or .csv. FILE.card.json is written beside it.")],
    folder: AnyFolder = DEFAULT_COORDINATOR,
    run: Annotated[str, typer.Option(
        "--run", "-r", help="The run in which the tables are kept. Use one for questions only: their cost counts against "
        "their run's epsilon.")] = "study",
    rows: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many to draw; their number costs nothing.")] = 1000,
    noise: Annotated[float | None, typer.Option(
        help="Standard deviation of the noise in each cell of a site's tables; one record counts 1. Default: as for scores, "
        "by the federation file.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2 ** 53 - 1, help="The same seed draws the same rows.")] = 0,
    asker: Annotated[str | None, typer.Option(help="Who asks; told to the sites, whose policy may name who may.")] = None,
    quorum: Annotated[int | None, typer.Option(help="Sites that must answer. Default: the federation file's.")] = None,
    deadline_s: Deadline = None,
    preview: Annotated[bool, typer.Option("--preview", help="Say what the tables would cost; ask nobody.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask every site for noised tables of columns and pairs of columns, and draw rows from them: for tests of a schema and a
    first recipe, without access to a record. Or ask for sums of encoded rows by label, and draw encoded rows: small images.

    It is one question, as those of `fedround ask`: charged once, and never again for other rows or seeds. The card says,
    signed, which tables the rows were drawn from, what they cost, and what is not promised.
    """
    from pydantic import ValidationError

    from fedround.synthetic.clouds import Clouds
    from fedround.values import in_words
    from flows.service import enter
    from tasks.questions import preview as previewed

    if file.suffix.lower() not in (".parquet", ".csv"):
        raise ContractError(f"{file}: expected a name that ends in .parquet or .csv")
    wanted, coordinator = _read(blueprint), enter(folder)
    if isinstance(wanted, Clouds) and wanted.labels != (task := coordinator.recipe.task).labels:
        raise ContractError(f"blueprint {blueprint}: rows of {wanted.labels} labels are asked for, and the federation's "
                            f"recipe learns {task.in_words}")
    std = coordinator.federation.evaluation.noise_std if noise is None else noise
    try:
        statistics = wanted.statistics(std)
    except ValidationError as error:
        raise ContractError(f"blueprint {blueprint}: {in_words(error)}") from None
    request = request_of(run, quorum, deadline_s, statistics, asker)
    told = previewed(coordinator, request.run, [statistics])
    if preview:
        _show_preview(told, len(statistics), as_json=as_json)
        return
    finding = found_or_asked(coordinator, request, run, as_json=as_json)
    card = _written(coordinator, finding, wanted, file, rows, seed,
                    told.epsilon if told.promised is not None and told.epsilon < float("inf") else None)
    if as_json:
        print_json(card.model_dump(mode="json"))
        return
    out.say("{} of {}: {}; with its card, {}", how_many(rows, "row"), how_many(wanted.width, "column"), file, card_of(file))
    if not isinstance(wanted, Clouds):
        joined = ", ".join(f"{one} – {other}" for one, other in card.pairs)
        out.say("columns are joined by {}", joined or "nothing: no pair shows more than noise")
    out.say("[dim]not promised: {}[/]", card.not_promised)


def _read(path: Path) -> Blueprint | Clouds:
    from fedround.synthetic.blueprint import Blueprint
    from fedround.synthetic.clouds import Clouds
    from fedround.values import parse
    from infra.toml import read_said

    said = read_said(path)
    kind: type[Blueprint] | type[Clouds] = Clouds if isinstance(said, dict) and "labels" in said else Blueprint
    return parse(kind, said, f"blueprint {path}")


def _show_preview(told: Any, tables: int, *, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        print_json({**asdict(told), "fits": told.fits, "tables": tables})
        return
    out.say("{} noised tables; nobody is asked yet", tables)
    say_cost(told)


def _written(coordinator: Coordinator, finding: Finding, blueprint: Blueprint | Clouds, file: Path, rows: int, seed: int,
             epsilon: float | None) -> Synthetic:
    """The rows and their card, on disk."""
    from fedround import __version__
    from fedround.files import write_whole
    from fedround.signing import digest, seal
    from fedround.synthetic.clouds import Clouds
    from fedround.synthetic.said import NOT_PROMISED, NOT_PROMISED_OF_CLOUDS, Synthetic
    from tasks.synthetic import as_bytes, drawn

    frame, pairs = drawn(blueprint, finding.totals, rows, seed)
    body = as_bytes(frame, file)
    card = Synthetic(
        federation=finding.federation, run=finding.run, round=finding.round, attempt=finding.attempt, plan=finding.plan,
        blueprint=blueprint, pairs=pairs, noise_std=finding.totals[0].noise_std, epsilon=epsilon, rows=rows, seed=seed,
        file=digest(body), not_promised=NOT_PROMISED_OF_CLOUDS if isinstance(blueprint, Clouds) else NOT_PROMISED,
        tool_version=__version__)
    write_whole(file, body, durable=False)
    write_whole(card_of(file), seal(card, coordinator.identity), durable=False)
    return card


def card_of(file: Path) -> Path:
    """Where the card of these rows lies."""
    return file.with_name(file.name + ".card.json")
