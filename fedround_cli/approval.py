"""fedround site approve: reading a recipe or a contract, and approving exactly these bytes."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedround.errors import ContractError
from fedround.spoken import in_groups, in_numbers
from fedround_cli.folders import SiteFolder
from fedround_cli.output import AsJson, command, out, print_json

if TYPE_CHECKING:
    from site_workers.approval import Candidate

Yes = Annotated[bool, typer.Option("--yes", help="Approve without a question, but only what --digest names.")]
Digests = Annotated[list[str], typer.Option(
    help="The beginning of the SHA-256 that you expect, at least 16 digits; once for each file. Anything else is refused.")]


@command
def approve(
    folder: SiteFolder,
    file: Annotated[Path | None, typer.Argument(help="A recipe (.py) or a data contract (.json).")] = None,
    yes: Yes = False,
    digest: Digests = [],  # noqa: B006 - typer makes its own list
    show: Annotated[bool, typer.Option("--list", help="Show what is approved.")] = False,
    withdraw: Annotated[str | None, typer.Option(
        help="Take an approval back, by the beginning of its digest: its file never runs again.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read a recipe or a contract, compare its digest over the telephone, and approve it. Nothing else ever runs.

    Shows the file, what it imports and its digest; then asks. After your "yes" a recipe is tried: does it encode each of your
    rows by itself, and can its model be trained on made-up rows? Only then the file is copied into approved/ and its digest
    is written into policy.toml. The approval holds from the next plan on. The file that is replaced is kept in
    approved/earlier/.
    """
    from infra.settings import SiteSettings, load_toml
    from site_workers import approval
    from site_workers.tried import try_candidate

    if [file is not None, show, withdraw is not None].count(True) != 1:
        raise ContractError("give a file to approve, or --list, or --withdraw DIGEST")
    if withdraw is not None:
        gone = approval.withdraw(folder, withdraw, datetime.now(UTC))
        out.print(f"{gone.kind} {gone.digest[:16]}… is not approved any more" + (
            ", and it was the current one: this site answers no plan until you approve another" if gone.current else ""))
    elif file is not None:
        settings, candidate = load_toml(SiteSettings, folder / "site.toml"), approval.read_candidate(file)
        ask(candidate, str(file), yes, digest)
        if candidate.kind == "recipe":
            for note in try_candidate(folder, settings, candidate):
                out.print(f"[yellow]![/] {note}")
        approval.approve(folder, settings, candidate, datetime.now(UTC))
        out.print(f"approved {candidate.kind} '{candidate.name}', from the next plan on")
        _warn(folder)
    else:
        _list(approval.approvals(folder), as_json)


def _warn(folder: Path) -> None:
    """Print each setting of the policy whose promise means little for these rows; nothing if the rows cannot be read now."""
    from fedround.errors import FedroundError
    from site_workers.preflight import doubts
    from site_workers.rows import read_site_rows
    from site_workers.site import open_site

    try:
        site = open_site(folder.resolve())
        rows = read_site_rows(site)
    except FedroundError:
        return          # 'fedround site check' says what is wrong with them
    for doubt in doubts(site.policy, len(rows.train) + len(rows.validation)):
        out.print(f"[yellow]![/] policy.toml: {doubt}", highlight=False)


def ask(candidate: Candidate, where: str, yes: bool, digests: list[str]) -> None:
    """Show a candidate and the notes about it, and ask. Raises ContractError if it is not what --digest names."""
    from rich.pager import SystemPager

    from site_workers import approval

    if digests and not any(approval.matches(candidate.digest, digest) for digest in digests):
        raise ContractError(f"the {candidate.kind} {where} has the digest {candidate.digest}, which no --digest names: "
                            "nothing was approved")
    if yes and not digests:
        raise ContractError("--yes approves only what --digest names: give the digest of each file")
    if not yes and sys.stdin.isatty() and sys.stdout.isatty():
        SystemPager().show(candidate.body.decode())
    out.say(f"{candidate.kind:<12}'{{}}', {{}}, {{}} lines", candidate.name, where, len(candidate.body.splitlines()))
    if candidate.kind == "recipe":
        out.print(f"imports     {', '.join(candidate.imports) or 'nothing'}", highlight=False)
    if candidate.warnings:
        out.say("only warn   {}", ", ".join(candidate.warnings))
    if candidate.beware:
        out.print(f"[bold]beware[/]      it names {', '.join(candidate.beware)}: such code can do more than its imports tell")
    out.print(f"SHA-256     {in_groups(candidate.digest)}\n"
              f"to read out {in_numbers(candidate.digest)}", highlight=False)
    if not yes:
        what = "It is code that will run beside your rows. " if candidate.kind == "recipe" else ""
        typer.confirm(f"{what}Have you read it, and does the coordinator read out the same numbers?", abort=True)


def _list(approvals: list, as_json: bool) -> None:
    if as_json:
        print_json([{"kind": one.kind, "digest": one.digest, "current": one.current} for one in approvals])
        return
    out.print(f"[bold]{'what':<10}{'SHA-256':<66}is[/]")
    for one in approvals:
        out.print(f"{one.kind:<10}{one.digest:<66}{'in use' if one.current else 'approved, not in use'}", highlight=False)
