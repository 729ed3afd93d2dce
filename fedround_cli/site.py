"""fedround site init, key, rotate, check, start. The other commands have modules of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedround.spoken import typed
from fedround_cli import (
    approval,
    audit,
    recover,
    site_drift,
    site_ledger,
    site_model,
    site_picture,
    site_quality,
    site_rehearse,
)
from fedround_cli.folders import SiteFolder
from fedround_cli.output import AsJson, command, log_to_terminal, out, print_json

if TYPE_CHECKING:
    from fedround.statistics.partitions import Partitions

app = typer.Typer(no_args_is_help=True, help="A site: its own data, keys, policy and ledger. It opens no port.")
app.command("approve")(approval.approve)
app.command("audit")(audit.audit)
app.command("ledger")(site_ledger.ledger)
app.command("recover")(recover.recover)
app.command("model")(site_model.model)
app.command("drift")(site_drift.drift)
app.command("rehearse")(site_rehearse.rehearse)


@app.command()
@command
def init(
    folder: SiteFolder,
    invitation: Annotated[Path, typer.Option(help="The file that the coordinator gave you.")],
    train: Annotated[Path, typer.Option(help="Rows to train on: a .parquet, .csv or .csv.gz file, a folder of them, or a "
                                             "pattern in quotation marks: 'rows/2019-*.parquet'; or a .sql file with one "
                                             "SELECT, and FEDROUND_DATABASE_URL names the database.")],
    validation: Annotated[Path, typer.Option(help="Rows held out, to evaluate models on; as --train.")],
    ledger: Annotated[Path | None, typer.Option(
        help="A folder of ledgers on this machine, one for each data set. Name the same folder for every federation that "
        "uses these rows: otherwise one ledger does not know what the other has spent.")] = None,
    dataset: Annotated[str, typer.Option(help="A name for these people's data: their ledger has this name.")] = "main",
    max_epsilon: Annotated[float, typer.Option(help="The most that may ever be spent on this data set.")] = 5.0,
    delta_dp: Annotated[float, typer.Option(help="The probability that goes with it.")] = 1e-5,
    unit: Annotated[list[str], typer.Option(help="Whom the noise must protect: record, person or site. With none, "
                                                 "plans without noise run here. Give it twice for two.")] = ["record"],  # noqa: B006
    max_epsilon_site: Annotated[float | None, typer.Option(help="With --unit site: the most for the whole site.")] = None,
    person: Annotated[str | None, typer.Option(
        metavar="COLUMN", help="With --unit person: the column that says whose row it is.")] = None,
    max_epsilon_person: Annotated[float | None, typer.Option(
        help="With --unit person: the most for all rows of one person.")] = None,
    max_epsilon_alone: Annotated[float | None, typer.Option(
        help="Where a federation adds up its members' numbers: the most if nobody else's noise counted. Without it, plans "
        "that share noise are mostly refused.")] = None,
    min_rows: Annotated[int, typer.Option(help="Refuse to train on fewer rows.")] = 100,
    groups: Annotated[bool, typer.Option(
        "--groups", help="Let out, noised and charged, how often the model is right and wrong about the groups that the "
        "federation watches: policy.toml then allows plans that measure decisions.")] = False,
    partitions: Annotated[str | None, typer.Option(
        metavar="COLUMN", help="Let plans train on one part of your rows, told apart by this column; only they pay. The "
        "coordinator learns how many rows each part has: name a date, never a diagnosis.")] = None,
    partitions_by: Annotated[str | None, typer.Option(
        metavar="day|week|month|value", help="With --partitions: by which part of a date, or by the column's value.",
        show_default="week")] = None,
    yes: approval.Yes = False,
    digest: approval.Digests = [],  # noqa: B006
    passphrase: Annotated[bool, typer.Option(
        "--passphrase", help="Encrypt the private key, the noise secret, and what rounds leave in kept and outbox. A start "
        "asks for the passphrase, or reads it from the file FEDROUND_PASSPHRASE_FILE.")] = False,
) -> None:
    """Make a site's folder: a key pair, a noise secret, a policy, an empty privacy ledger, an audit log.

    Asks you to approve the invitation's recipe and contract, as `fedround site approve` does. The private key never leaves
    the folder; send the coordinator the public key that is printed.
    """
    from fedround.values import parse
    from infra.invitations import Invitation, load_invitation
    from infra.settings import DataSettings
    from site_workers.enrol import create_site, offered

    offer = load_invitation(Invitation, invitation)
    out.print(f"federation  {offer.federation}, as site '{offer.site}'\ncoordinator {offer.coordinator}")
    for candidate in offered(offer):
        approval.ask(candidate, f"in {invitation}", yes, digest)
    # Not resolved: where a link leads to next week is the operator's business.
    data = parse(DataSettings, {"dataset": dataset, "train": str(train.absolute()),
                                "validation": str(validation.absolute()),
                                "ledger": None if ledger is None else str(ledger.resolve())}, "the site's data")
    key = create_site(
        folder, offer, data,
        max_epsilon=max_epsilon, delta_dp=delta_dp, units=unit, max_epsilon_site=max_epsilon_site, min_rows=min_rows,
        person=person, max_epsilon_person=max_epsilon_person, max_epsilon_alone=max_epsilon_alone,
        compares_groups=groups, partitions=_told_apart(partitions, partitions_by),
        passphrase=_new_passphrase() if passphrase else None)
    if ledger is None:
        out.print("its ledger counts for this federation only; if these rows serve another one, too, name one --ledger DIR "
                  "for both")
    out.say("made [bold]{}[/]; send this public key to the coordinator:\n  [bold]{}[/]\nNext: [bold]fedround site check "
            "{}[/], and [bold]fedround site start {}[/] once you are a member", folder, key, typed(folder), typed(folder))


@app.command()
@command
def check(folder: SiteFolder, as_json: AsJson = False) -> None:
    """Preflight: addresses, clock, credential scope, contract on the local rows, policy, keys. Says what to mend.

    Then tables for you alone: labels, how many of them look wrong, and values that lie far out; what the files hold, and what
    the recipe makes of it. Exit code 0 if everything is ready, 1 if not; what the tables show decides nothing. Sends nothing
    that depends on rows.
    """
    from dataclasses import asdict

    from site_workers.preflight import preflight, quality

    findings, found = preflight(folder), quality(folder)
    if as_json:
        print_json([{"check": f.check, "ok": f.ok, "detail": f.detail} for f in findings] + (
            [] if found is None else [{"check": "quality", "ok": True, "detail": "for the operator alone", **asdict(found)}]))
    else:
        for finding in findings:
            out.say(f"{'[green]✓[/]' if finding.ok else '[bold red]✗[/]'} {finding.check:<12} {{}}", finding.detail)
        if found is not None:
            site_quality.show(found)
        site_picture.show(folder)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command()
@command
def key(folder: SiteFolder) -> None:
    """Print the site's public key, and nothing else: what the coordinator needs for `federation add`."""
    from site_workers.site import load_identity

    typer.echo(load_identity(folder).key)


@app.command()
@command
def rotate(
    folder: SiteFolder,
    passphrase: Annotated[bool, typer.Option(
        "--passphrase", help="Encrypt the new private key, the noise secret, and what rounds leave in kept and "
        "outbox.")] = False,
) -> None:
    """Make a new key, and let the present one hand over to it. Nothing changes until the coordinator has taken it.

    Then the site's process takes it without a restart. Only if the key's passphrase was typed, start the process again.
    """
    from site_workers.keys import begin_rotation
    from site_workers.site import open_site

    site = open_site(folder)
    new = begin_rotation(site, _new_passphrase() if passphrase else None)
    out.say("the new public key is\n  [bold]{}[/]\nIt waits in {}/keys/next.pem until the coordinator runs [bold]fedround "
            "federation rotate {}[/]; compare the keys over the telephone", new, folder, site.name)


@app.command()
@command
def start(folder: SiteFolder) -> None:
    """Serve this site's rounds until stopped. Opens no port; runs only what the policy approves.

    If it is killed at any moment and started again, it goes on: what was charged stays charged, what was computed is sent
    again.
    """
    from site_workers.service import serve_site

    log_to_terminal()
    serve_site(folder)


def _told_apart(column: str | None, by: str | None) -> tuple[Partitions, ...]:
    from fedround.errors import ContractError
    from fedround.statistics.partitions import Partitions
    from fedround.values import parse

    if column is None:
        if by is not None:
            raise ContractError("--partitions-by says how rows are told apart, and not by which column: give --partitions "
                                "COLUMN, too")
        return ()
    return (parse(Partitions, {"column": column, **({} if by is None else {"by": by})}, "--partitions"),)


def _new_passphrase() -> bytes:
    from infra.passphrase import passphrase_from_file

    given = passphrase_from_file()
    return given if given is not None else str(typer.prompt(
        "passphrase of the new key", hide_input=True, confirmation_prompt=True)).encode()
