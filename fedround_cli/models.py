"""fedround models list, show, get, rebuild: the versioned checkpoints. Their use is in `promotion`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedround.errors import ContractError, SetupError
from fedround.spoken import how_many
from fedround_cli import contribution, explain, export, promotion, shapes, thresholds
from fedround_cli.folders import DEFAULT_COORDINATOR, CoordinatorFolder
from fedround_cli.output import AsJson, command, out, print_json

if TYPE_CHECKING:
    from infra.model_registry import ModelRegistry

app = typer.Typer(no_args_is_help=True, help="The versioned models: one tag per committed round, in a git + DVC store.")

app.command("bundle")(promotion.bundle)
app.command("promote")(promotion.promote)
app.command("rollback")(promotion.rollback)
app.command("stages")(promotion.stages)
app.command("thresholds")(thresholds.thresholds)
app.command("contribution")(contribution.contribution)
app.command("explain")(explain.explain)
app.command("shapes")(shapes.shapes)
app.command("export")(export.export)

Tag = Annotated[str, typer.Argument(help="A version, as `models list` shows it.")]


@app.command("list")
@command
def list_models(folder: CoordinatorFolder = DEFAULT_COORDINATOR, as_json: AsJson = False) -> None:
    """List the versions with their metrics on the public test set."""
    from rich.table import Table

    from tasks.reporting.words import label

    versions = _registry(folder).versions()
    if as_json:
        print_json([{"version": version.tag, "checkpoint": version.checkpoint.model_dump(mode="json"),
                     "metrics": dict(version.metrics)} for version in versions])
        return
    if not versions:
        out.print("there is no version yet: each committed round makes one, [bold]fedround train run[/] asks for some")
        return
    known = list(dict.fromkeys(name for version in versions for name in version.metrics))
    table = Table("version", "model", *map(label, known))
    for version in versions:
        reached = (f"{version.metrics[name]:.4f}" if name in version.metrics else "" for name in known)
        table.add_row(version.tag, version.checkpoint.model.sha256[:16], *reached)
    out.print(table)


@app.command("show")
@command
def show(tag: Tag, folder: CoordinatorFolder = DEFAULT_COORDINATOR, as_json: AsJson = False) -> None:
    """Show one version: its round, its sites, its privacy, its parent."""
    from fedround_cli.campaign import sites_table
    from flows.service import enter
    from infra.history import read_commit
    from tasks.report import page, records

    coordinator = enter(folder)
    found = [version.checkpoint for version in _registry(folder).versions() if version.tag == tag]
    if not found:
        raise ContractError(f"there is no version '{tag}': 'fedround models list' shows them")
    version = found[0]
    commit = read_commit(coordinator.store, version.run, version.round, coordinator.key).commit
    if as_json:
        print_json(commit.model_dump(mode="json"))
        return
    out.say("[bold]{}[/]  model {}\nparent   {}\ncommit   of run '{}', round {}, by fedround {}", tag, commit.model,
            commit.base_model, commit.run, commit.round, commit.tool_version)
    for record in records(coordinator, version.run):
        if record.round == version.round:
            out.say("privacy  {}\nrule     {}; server {}", record.privacy, record.aggregation, record.optimizer)
            out.print(sites_table(record))
            out.print(f"report   {page(coordinator, record.run, record.round)}")


class Form(StrEnum):
    """What `models get` writes."""

    SAFETENSORS = "safetensors"
    XGBOOST = "xgboost"


@app.command("get")
@command
def get(
    tag: Tag,
    destination: Annotated[Path, typer.Argument(help="File to write, for example model.safetensors or model.json.")],
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    whole: Annotated[bool, typer.Option(
        "--whole", help="With the frozen part, which no round changes: all that the recipe's model needs.")] = False,
    form: Annotated[Form, typer.Option(
        "--as", help="Trees also as the JSON that XGBoost reads. It takes a row's features, as the recipe makes them.")
    ] = Form.SAFETENSORS,
) -> None:
    """Fetch a model, checked against its digest, as a safetensors file.

    The file holds what travels. A private part is at the sites alone: there, 'fedround site model' writes the whole model.
    """
    if form is Form.XGBOOST:        # of trees no part is frozen
        features = _as_xgboost(tag, destination, folder)
        out.say("{} is in {}, for xgboost.Booster(model_file=…): {}", tag, destination, how_many(features, "feature"))
        return
    _registry(folder).fetch(tag, destination)
    out.print(f"{tag} is in {destination}" + (_completed(tag, destination, folder) if whole else ""))


def _as_xgboost(tag: str, destination: Path, folder: Path) -> int:
    """Write trees as XGBoost's JSON. Returns how many features they take."""
    import tempfile

    from fedround import codec
    from fedround.files import write_whole
    from fedround.learning.trees.losses import outputs_of
    from fedround.learning.trees.xgboost import to_xgboost
    from flows.service import enter

    recipe, registry = enter(folder).recipe, _registry(folder)
    trained_with = next((one.checkpoint for one in registry.versions() if one.tag == tag), None)
    if recipe.trees is None:
        raise ContractError(f"--as xgboost: recipe '{recipe.name}' says no TREES, and XGBoost knows only trees: leave --as "
                            "out, or take 'fedround models bundle', which writes ONNX")
    if trained_with is not None and trained_with.recipe_digest != recipe.digest:
        raise ContractError(f"{tag} was trained with recipe {trained_with.recipe_digest[:16]}, and the coordinator's is "
                            f"{recipe.digest[:16]}: put back the recipe of that run")
    with tempfile.TemporaryDirectory(prefix="fedround-trees-") as held:
        fetched = Path(held) / "model.safetensors"
        registry.fetch(tag, fetched)
        model = codec.decode(fetched.read_bytes(), recipe.trees.model(outputs_of(recipe.task)), tag)
    columns = recipe.declared.columns
    write_whole(destination, to_xgboost(recipe.trees, recipe.task, model, () if columns is None else columns.names),
                durable=True, mode=0o600)
    return len(recipe.trees.axes)


def _completed(tag: str, destination: Path, folder: Path) -> str:
    """Put the frozen part into the file; returns the words for the message."""
    from fedround import codec
    from fedround.files import write_whole
    from fedround.learning.start import read
    from flows.service import enter
    from infra.history import read_rest

    checkpoint = next(version.checkpoint for version in _registry(folder).versions() if version.tag == tag)
    coordinator = enter(folder)
    frozen = read_rest(coordinator.store, coordinator.recipe, checkpoint.parts, checkpoint.rest, checkpoint.run).frozen
    write_whole(destination, codec.encode({**read(destination.read_bytes()), **frozen}), durable=True, mode=0o600)
    private = "; its private part is at the sites" if checkpoint.parts.private else ""
    return f", with {how_many(len(frozen), 'frozen tensor')}{private}"


@app.command("rebuild")
@command
def rebuild(
    run: Annotated[str, typer.Argument(help="The run whose versions and reports to write again.")],
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
) -> None:
    """Write a run's versions, records and pages again from the bucket, if a coordinator's folder was lost.

    What is there stays. How long rounds took is not in the bucket.
    """
    from rich.progress import track

    from flows.service import enter
    from tasks.catch_up import rebuild as rounds

    coordinator = enter(folder)
    if not (last := coordinator.last_round(run)):
        raise ContractError(f"run '{run}' has no committed round: 'fedround status' shows the runs")
    for _ in track(rounds(coordinator, run), description=f"rounds of '{run}'", total=last, console=out):
        pass
    out.say("the {} of '{}' are in {} and {}", how_many(last, "round"), run, folder / "models", coordinator.reports / run)


def _registry(folder: Path) -> ModelRegistry:
    from infra.model_registry import ModelRegistry

    if not (folder / "coordinator.toml").exists():
        raise SetupError(f"{folder} is not a coordinator's folder: name it with --coordinator")
    return ModelRegistry.open(folder / "models")
