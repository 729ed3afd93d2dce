"""fedround site init, key, check, start, ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.folders import SiteFolder
from cli.output import AsJson, command, log_to_terminal, out, print_json

app = typer.Typer(no_args_is_help=True, help="A site: its own data, keys, policy and ledger. It opens no port.")


@app.command()
@command
def init(
    folder: SiteFolder,
    invitation: Annotated[Path, typer.Option(help="The file that the coordinator gave you.")],
    train: Annotated[Path, typer.Option(help="Rows to train on (parquet or CSV).")],
    validation: Annotated[Path, typer.Option(help="Rows held out, to evaluate models on.")],
    dataset: Annotated[str, typer.Option(help="A name for these people's data: what is spent is spent on it.")] = "main",
    max_epsilon: Annotated[float, typer.Option(help="The most that may ever be spent on this data set.")] = 5.0,
    delta_dp: Annotated[float, typer.Option(help="The probability that goes with it.")] = 1e-5,
    allow_no_privacy: Annotated[bool, typer.Option("--allow-no-privacy", help="Let plans without noise run here.")] = False,
    min_rows: Annotated[int, typer.Option(help="Refuse to train on fewer rows.")] = 100,
    yes: Annotated[bool, typer.Option("--yes", help="Approve the recipe and the contract without being asked.")] = False,
) -> None:
    """Make a site's folder: a key pair, a noise secret, a policy, an empty privacy ledger.

    Shows the recipe's and the contract's digest before it approves them: compare them with the coordinator over the
    telephone. The private key never leaves the folder; send the coordinator the public key that is printed.
    """
    import hashlib

    from fedround.types import parse
    from infra.settings import DataSettings, Invitation, load_toml
    from site_workers.enrol import create_site

    offer = load_toml(Invitation, invitation)
    out.print(f"federation  {offer.federation}, as site '{offer.site}'\ncoordinator {offer.coordinator}\n"
              f"recipe      {hashlib.sha256(offer.recipe.encode()).hexdigest()}\n"
              f"contract    {hashlib.sha256(offer.contract.encode()).hexdigest()}")
    if not yes:
        typer.confirm("The recipe is code that will run beside your rows. Have you read it, and approve both?", abort=True)
    data = parse(DataSettings, {"dataset": dataset, "train": str(train.resolve()),
                                "validation": str(validation.resolve())}, "the site's data")
    key = create_site(
        folder, offer, data,
        max_epsilon=max_epsilon, delta_dp=delta_dp, allow_no_privacy=allow_no_privacy, min_rows=min_rows)
    out.print(f"made [bold]{folder}[/]; send this public key to the coordinator:\n  [bold]{key}[/]\n"
              f"Next: [bold]fedround site check {folder}[/], and [bold]fedround site start {folder}[/] once you are a member")


@app.command()
@command
def check(folder: SiteFolder, as_json: AsJson = False) -> None:
    """Preflight: addresses, clock, credential scope, contract on the local rows, policy, keys. Says what to mend.

    Exit code 0 if everything is ready, 1 if not. Sends nothing that depends on rows.
    """
    from site_workers.preflight import preflight

    findings = preflight(folder)
    if as_json:
        print_json([{"check": f.check, "ok": f.ok, "detail": f.detail} for f in findings])
    else:
        for finding in findings:
            out.print(f"{'[green]✓[/]' if finding.ok else '[bold red]✗[/]'} {finding.check:<12} {finding.detail}",
                      highlight=False)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command()
@command
def key(folder: SiteFolder) -> None:
    """Print the site's public key, and nothing else: what the coordinator needs for `federation add`."""
    from fedround.signing import Identity

    typer.echo(Identity.load(folder / "keys" / "identity.pem").key)


@app.command()
@command
def start(folder: SiteFolder) -> None:
    """Serve this site's rounds until stopped. Opens no port; runs only what the policy approves.

    Killed at any moment and started again, it goes on: what was charged stays charged, what was computed is sent again.
    """
    from site_workers.service import serve_site

    log_to_terminal()
    serve_site(folder)


@app.command()
@command
def ledger(folder: SiteFolder, as_json: AsJson = False) -> None:
    """Show what has been spent on this site's rows: every charge, by run, and what is left."""
    from rich.table import Table

    from fedround.privacy import ledger as book
    from infra.settings import SitePolicy, load_toml

    policy = load_toml(SitePolicy, folder / "policy.toml")
    read = book.read(folder / "ledger.jsonl")
    spent = book.spent(read, policy.delta_dp)
    if as_json:
        print_json({"dataset": read.dataset, "head": read.head, "delta_dp": policy.delta_dp, "spent": spent,
                    "max_epsilon": policy.max_epsilon, "charges": [c.model_dump(mode="json") for c in read.charges]})
        return
    table = Table("when (UTC)", "run", "round", "purpose", "mechanisms", title=f"data set '{read.dataset}'")
    for charge in read.charges:
        table.add_row(charge.utc, charge.run, str(charge.round), charge.purpose,
                      ", ".join(_in_words(mechanism) for mechanism in charge.mechanisms))
    out.print(table)
    out.print(f"spent ε {spent:.4f} of {policy.max_epsilon:g} at δ {policy.delta_dp:g} (record level; PLD accountant); "
              f"ledger head {read.head[:16]}…")


def _in_words(mechanism) -> str:
    return " ".join(f"{key} {value:g}" if isinstance(value, float | int) else str(value)
                    for key, value in mechanism.model_dump().items())
