"""fedround site audit: what was asked of a site, what it decided, what it spent, what left."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from fedround.spoken import how_many
from fedround_cli.folders import SiteFolder
from fedround_cli.output import AsJson, command, out, print_json

if TYPE_CHECKING:
    from site_workers.audit import Event


@command
def audit(
    folder: SiteFolder,
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="Show this many events, the newest.")] = 50,
    begin: Annotated[bool, typer.Option(
        "--begin", help="Begin a new log if the old one is lost; it starts with what ledger and outbox hold.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show this site's audit log, and check it: its chain, and whether it agrees with the ledger and the outbox.

    Exit code 0 if nothing was altered, cut off or exchanged. Exit code 1 if something was, with what to do. --json prints all
    events.
    """
    from infra.settings import SiteSettings, load_toml
    from site_workers import audit as log
    from site_workers.site import open_safe

    safe = open_safe(folder.resolve())
    if begin:
        settings = load_toml(SiteSettings, folder / "site.toml")
        log.begin(safe, settings.name, datetime.now(UTC), settings.data.ledger_file(folder))
        out.print("began a new audit log")
    events = log.verify(safe)
    if as_json:
        print_json([event.model_dump(mode="json") for event in events])
        return
    out.print(f"[bold]{'when (UTC)':<22}{'what':<13}about[/]")      # no Table: a narrow one would break keys and digests
    for event in events[-last:]:
        out.say(f"{event.utc:<22}{event.what:<13}{{}}", _in_words(event))
    out.print(f"{how_many(len(events), 'event')}; the chain holds, and ledger and outbox agree with it")


_WORDS = {
    "started": "fedround {version}, policy {policy:.16}…",
    "approved": "{kind} {file:.16}…",
    "withdrawn": "{kind} {file:.16}…",
    "asked": "{purpose}, round {round} of '{run}', attempt {attempt}: plan {plan:.16}… by {by:.20}…",
    "turned away": "{problem}, round {round} of run {run}",
    "decided": "plan {plan:.16}…: {decision}",
    "spent": "plan {plan:.16}…: {mechanisms}",
    "disclosed": "plan {plan:.16}…: to '{peer}' for '{purpose}': {told}, of {count} customers",
    "left": "{kind}, {size_bytes} bytes, {key}, SHA-256 {sha256:.16}…",
    "recovered": "plan {plan}: {mechanisms}; the ledger then has {charges} charges",
    "found": "{key}, SHA-256 {sha256:.16}…",
}


def _in_words(event: Event) -> str:
    said = event.model_dump(mode="json")
    if event.what in ("spent", "recovered"):
        said["mechanisms"] = ", ".join(mechanism.kind for mechanism in event.mechanisms)
    return _WORDS[event.what].format(**said)
