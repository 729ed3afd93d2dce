"""The command `fedround`. Commands import what they need when they run, so that --help answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

import typer

from fedround_cli import (
    ask,
    compare,
    contract,
    coordinator,
    demo,
    doctor,
    drift,
    federation,
    join,
    models,
    predict,
    privacy,
    proxy,
    recipe,
    region,
    simulate,
    site,
    stack,
    status,
    synth,
    train,
    verify,
)
from fedround_cli.helped import lay_out
from fedround_cli.terminal import show_plainly

lay_out()

app = typer.Typer(
    name="fedround",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Cross-silo federated learning as an ordinary Prefect pipeline.

A few organisations train one model and never move a record. Start with **fedround demo**: twelve banks on this machine.

* **coordinator**: `up`, `federation init`, `federation invite`, `federation add`, `privacy plan`, `deploy`,
  `coordinator start`, `train run`, `ask`, `join`, `synth`, `drift run`
* **data scientist**: `recipe new` writes a first recipe for a table, `simulate` tries it before anybody is asked for a
  record; `recipe check`; `contract infer`, `check`, `diff`
* **several coordinators**: `coordinator invite` → `coordinator init` → `coordinator add` → `coordinator update`
* **regional coordinator**: `region init` → `region start`; its mandate: `region invite`, `region mandate`
* **site operator**: `site init` → `site check` → `site start`, and `site ledger` at any time
* **who uses the model**: `models bundle`, `models promote`, `models stages`, `models rollback`, `predict`
* **auditor**: `verify`, `models show`, `site ledger`
""")

app.command("demo")(demo.demo)
app.command("up")(stack.up)
app.command("down")(stack.down)
app.command("status")(status.status)
app.command("doctor")(doctor.doctor)
app.add_typer(federation.app, name="federation")
app.add_typer(site.app, name="site")
app.add_typer(coordinator.app, name="coordinator")
app.add_typer(region.app, name="region")
app.command("deploy")(coordinator.deploy)
train.train_app.command("compare")(compare.compare)
app.add_typer(train.train_app, name="train")
app.add_typer(train.round_app, name="round")
app.command("ask")(ask.ask)
app.command("join")(join.join)
app.command("synth")(synth.synth)
app.add_typer(drift.app, name="drift")
app.add_typer(models.app, name="models")
app.add_typer(recipe.app, name="recipe")
app.add_typer(contract.app, name="contract")
app.command("predict")(predict.predict)
app.add_typer(privacy.app, name="privacy")
app.add_typer(proxy.app, name="proxy")
app.command("simulate")(simulate.simulate)
app.command("verify")(verify.verify)



def main() -> None:
    """What `fedround` runs."""
    show_plainly(sys.stdout, sys.stderr)
    reach_this_machine(os.environ)
    app()


def reach_this_machine(environment: MutableMapping[str, str]) -> None:
    """Say that no proxy stands between the processes of one machine: a proxy cannot reach its loopback addresses."""
    named = next((environment[name] for name in ("no_proxy", "NO_PROXY") if environment.get(name)), "")
    for name in ("no_proxy", "NO_PROXY"):       # libraries differ in which one they read
        environment[name] = named if named == "*" else ",".join(filter(None, [named, "127.0.0.1", "localhost", "::1"]))


if __name__ == "__main__":
    main()
