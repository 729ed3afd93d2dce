"""fedround predict: scores of rows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedround.errors import ContractError, SetupError
from fedround.spoken import how_many
from fedround_cli.folders import DEFAULT_COORDINATOR, AnyFolder
from fedround_cli.output import AsJson, command, out, print_json

if TYPE_CHECKING:
    from fedround.bundle import Bundle


@command
def predict(
    model: Annotated[str, typer.Argument(
        help="A bundle's file or folder. With a coordinator's folder also a stage (production), a version (v2.1.0), or a "
             "committed round (spring/round-00020).")],
    rows: Annotated[Path, typer.Argument(help="Rows to score, .csv or .parquet. No label column is needed.")],
    destination: Annotated[Path, typer.Option("--out", "-o", help="Scores to write, .csv or .parquet.")],
    folder: AnyFolder = DEFAULT_COORDINATOR,
    peer: Annotated[str | None, typer.Option(
        "--with", metavar="PEER", help="Predict together with this site: MODEL is then the purpose of the exchange, and --as "
                                       "the folder of the site that has the labels (docs/vertical.md).")] = None,
    key: Annotated[str | None, typer.Option(help="Instead of --as: the coordinator's public key, ed25519:…")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="The smaller form of the model: slightly less exact.")] = False,
    memory_mb: Annotated[int, typer.Option(min=256, help="Memory that the process that runs the recipe may use.")] = 4096,
    seconds: Annotated[int, typer.Option(min=1, max=604_800, help="CPU seconds that this process may use.")] = 3600,
    as_json: AsJson = False,
) -> None:
    """Score rows with a model. Every file of its bundle is verified with the coordinator's signature first.

    The scores are written in the order of the rows, whole or not at all, and only you can read them. The bundle's recipe is
    code. It runs in a process of its own, without credentials; at a site only if its operator approved it.
    """
    from site_workers.policy import Limits
    from site_workers.scoring import score

    if peer is not None:
        _together(folder, peer, model, rows, destination, as_json=as_json)
        return
    began, found = time.monotonic(), _proven(model, folder, key)
    try:
        done = score(found, rows, destination, form="int8" if int8 else "float32",
                     limits=Limits(memory_mb=memory_mb, seconds=seconds))
    except MemoryError:
        raise SetupError(f"the recipe wants more than {memory_mb} MB for the rows at {rows}: allow more with "
                         "--memory-mb") from None
    manifest = found.manifest
    if as_json:
        print_json({"rows": done.rows, "out": str(done.out), "model": manifest.model, "run": manifest.run,
                    "round": manifest.round,
                    "approved_by": None if manifest.approval is None else manifest.approval.by})
        return
    who = "nobody has approved it" if manifest.approval is None else f"approved by {manifest.approval.by}"
    out.say("{} scored in {} s by round {} of run '{}' ({}); in {}", how_many(done.rows, "row"),
            f"{time.monotonic() - began:.0f}", manifest.round, manifest.run, who, done.out)


def _together(folder: Path, peer: str, purpose: str, rows: Path, destination: Path, *, as_json: bool) -> None:
    from site_workers.site import open_site
    from site_workers.together import predict as with_peer
    from site_workers.together import write

    if not (folder / "site.toml").exists():
        raise SetupError(f"{folder} is no site's folder: give the one of the site that has the labels with --as")
    found = with_peer(open_site(folder.resolve()), peer, purpose, rows)
    known = write(found, destination)
    if as_json:
        print_json({"rows": len(found.customer_N), "predicted": known, "out": str(destination), "exchange": found.exchange})
        return
    out.say("{}, {} of them of customers whom '{}' has, too, and predicted with it; in {}",
            how_many(len(found.customer_N), "row"), f"{known:,}", peer, destination)


def _proven(model: str, folder: Path, key: str | None) -> Bundle:
    from fedround.bundle import open_bundle, read_bundle

    path = Path(model)
    if path.exists():
        found = open_bundle(path, _key(folder) if key is None else _checked(key))
    elif (folder / "coordinator.toml").exists():
        from fedround_cli.promotion import resolved
        from flows.service import enter

        coordinator = enter(folder)
        found = read_bundle(resolved(coordinator, model), coordinator.key, f"bundle of '{model}'")
    else:
        raise SetupError(f"there is no bundle at {path}, and {folder} is no coordinator's folder in which to look for it")
    if (folder / "site.toml").exists():
        _check_approved(folder, found)
    return found


def _key(folder: Path) -> str:
    from fedround_cli.membership import store_and_key

    if not any((folder / name).exists() for name in ("site.toml", "coordinator.toml")):
        raise SetupError("whose bundle is it? Give the coordinator's public key with --key, or a folder of the federation "
                         "with --as; nothing in the bundle can say so itself")
    return store_and_key(folder)[1]


def _checked(key: str) -> str:
    from pydantic import TypeAdapter, ValidationError

    from fedround.values import PublicKey

    try:
        return TypeAdapter(PublicKey).validate_python(key)
    except ValidationError:
        raise ContractError("--key is not a public key: expected ed25519: and 64 hexadecimal digits") from None


def _check_approved(folder: Path, found: Bundle) -> None:
    from infra.settings import load_toml
    from site_workers.policy import SitePolicy

    if found.manifest.recipe_digest not in load_toml(SitePolicy, folder / "policy.toml").recipes:
        raise ContractError(f"the bundle's recipe {found.manifest.recipe_digest[:16]} is not approved at this site: read it, "
                            "then 'fedround site approve'")
