"""fedround verify."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli.output import AsJson, command, out, print_json


@command
def verify(
    run: Annotated[str, typer.Argument(help="The run whose history to prove.")],
    folder: Annotated[Path, typer.Option(
        "--as", help="A coordinator's or a site's folder: says which store to read and which key must have signed.",
        envvar="FEDROUND_COORDINATOR")] = Path("coordinator"),
    as_json: AsJson = False,
) -> None:
    """Walk a run's chain of commits and check every signature and every hash, from the object store alone.

    Exit code 0: every model of the run is proven back to round 0. Exit code 1: the first thing that does not hold.
    """
    from rich.table import Table

    from cli.membership import store_and_key
    from tasks.verify import verify_run

    store, key = store_and_key(folder)
    proofs = list(verify_run(store, run, key))
    if as_json:
        print_json({"run": run, "coordinator": key, "rounds": [asdict(proof) for proof in proofs]})
        return
    table = Table("round", "commit", "model", "updates", "refusals", "signatures", "hashes", title=f"run '{run}'")
    for proof in proofs:
        table.add_row(str(proof.round), proof.commit[:16], proof.model[:16], str(len(proof.updates)),
                      ", ".join(proof.refusals), str(proof.signatures), str(proof.hashes))
    out.print(table)
    out.print(f"[green]✓[/] {len(proofs)} rounds, {sum(p.signatures for p in proofs)} signatures and "
              f"{sum(p.hashes for p in proofs)} hashes hold; signed by {key}")
    if hidden := {site for proof in proofs for site in proof.unseen}:
        out.print(f"[yellow]![/] this credential may not read the answers of {', '.join(sorted(hidden))}: for those the "
                  "coordinator's signature vouches; an auditor's credential proves them too")
