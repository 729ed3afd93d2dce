"""fedround site recover: give a folder that was restored from a backup its lost charges back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedround.errors import ContractError
from fedround.spoken import typed
from fedround_cli.folders import SiteFolder
from fedround_cli.output import AsJson, command, out, print_json

if TYPE_CHECKING:
    from fedround.privacy.entries import Charge
    from site_workers.recover import Recovery
    from site_workers.site import Site


@command
def recover(
    folder: SiteFolder,
    yes: Annotated[bool, typer.Option("--yes", help="Write it down without asking.")] = False,
    as_json: AsJson = False,
) -> None:
    """Charge what a restored ledger has forgotten, as the store's signed answers, plans and commits show it.

    Some charges are known to have been made, and nothing shows what for. Each of them is priced as the dearest release that
    was possible. Nothing is ever removed from the ledger. Look for a newer backup first: a backup has the exact charges. Stop
    the site's process before you run this.
    """
    from infra.serving import served_alone
    from site_workers import recover as recovery
    from site_workers.site import open_site

    if as_json and not yes:
        raise ContractError("--json asks nothing: give --yes as well")
    site = open_site(folder.resolve())
    with served_alone(site.folder):
        found = recovery.forgotten(site)
        told = _told(site, found)
        if not as_json:
            _show(found, told)
        anything = bool(found.charges or found.answers)
        if anything and not (yes or typer.confirm("Write this into the ledger?")):
            raise typer.Exit(1)
        recovery.restore(site, found)
    if as_json:
        print_json(told)
    elif anything:
        out.say("written down; next: [bold]fedround site check {}[/], and start the site", typed(folder))


def _told(site: Site, found: Recovery) -> dict[str, Any]:
    from fedround.privacy import ledger

    before = ledger.read(site.ledger)
    after = ledger.with_entries(before, found.charges)
    return {"answers": [sent.key for sent in found.answers], "proven": [_line(charge) for charge in found.proven],
            "unknown": [_line(charge) for charge in found.unknown], "delta_dp": site.policy.delta_dp,
            "epsilon": {unit: {"before": ledger.held(before, site.policy.delta_dp, unit=unit), "allowed": allowed,
                               "after": ledger.held(after, site.policy.delta_dp, unit=unit)}
                        for unit, allowed in site.policy.budgets.items()}}


def _line(charge: Charge) -> dict[str, Any]:
    return charge.model_dump(mode="json", include={"run", "round", "purpose", "plan", "mechanisms"})


def _show(found: Recovery, told: dict[str, Any]) -> None:
    if not (found.charges or found.answers):
        out.print("nothing is forgotten: all known answers and charges of this site are in its outbox and its ledger")
        return
    from rich.table import Table

    table = Table("run", "round", "mechanisms", "known from", title="forgotten charges")
    for why, charges in (("this site's answers or audit log", found.proven),
                         ("a commit or the ledger's length; priced at the dearest", found.unknown)):
        for charge in charges:
            table.add_row(charge.run or "unknown", str(charge.round) if charge.run else "",
                          ", ".join(mechanism.kind for mechanism in charge.mechanisms), why)
    out.print(table)
    out.print(f"signed answers and refusals that go back into the outbox: {len(found.answers)}")
    for unit, spent in told["epsilon"].items():
        out.print(f"ε of a {unit}: {spent['before']:.4f} → {spent['after']:.4f}, allowed {spent['allowed']:g}")
