"""fedround site model: a model for use at the site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedround_cli.folders import SiteFolder
from fedround_cli.output import AsJson, command, out, print_json


@command
def model(
    folder: SiteFolder,
    destination: Annotated[Path, typer.Option("--out", help="File to write, for example model.safetensors.")],
    run: Annotated[str | None, typer.Option(help="The run whose model is written; needed if the site has several.")] = None,
    personal: Annotated[bool, typer.Option("--personal", help="The site's personal model, not the shared one.")] = False,
    fine_tune: Annotated[int, typer.Option(min=0, max=10_000, help="Steps to train it further on the rows here.")] = 0,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of these steps.")] = 0.05,
    batch_size: Annotated[int, typer.Option(help="Batch size of these steps.")] = 32,
    as_json: AsJson = False,
) -> None:
    """Write the last committed model, with this site's private and the frozen parts, for use here; and say how good it is.

    Of several models that sites choose among it is the one that is best on the rows held out here.

    The metrics are exact, and about rows that you hold out. They are for you alone, and are neither sent nor charged. Private
    parts, the personal model and fine-tuning depend on your rows: treat the file as you treat them.
    """
    from fedround.learning.spec import LocalTraining
    from fedround.values import parse
    from site_workers.export import own_model, write
    from site_workers.site import open_site

    tuning = None if fine_tune == 0 else parse(LocalTraining, {
        "local_steps": fine_tune, "learning_rate": learning_rate, "batch_size": batch_size}, "fine-tuning")
    found = own_model(open_site(folder.resolve()), run, personal=personal, tuning=tuning)
    sha256 = write(found, destination)
    if as_json:
        print_json({"run": found.run, "round": found.round, "shared": found.shared, "personal": personal,
                    "fine_tuned_steps": fine_tune, "out": str(destination), "sha256": sha256,
                    "metrics": None if found.metrics is None else found.metrics.model_dump(),
                    "before_fine_tuning": None if found.before is None else found.before.model_dump()})
        return
    kind = "personal model" if personal else "model"
    out.print(f"the {kind} of run '{found.run}' after round {found.round} is in [bold]{destination}[/] (mode 0600)")
    if found.before is not None:
        out.print(f"on rows held out here, before fine-tuning: {found.before}")
    if found.metrics is not None:
        out.print(f"on rows held out here: {found.metrics}")
