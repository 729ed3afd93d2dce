"""How long a new site takes from an invitation to a dry run of a round: five commands, typed as an operator types them.

    python -m benchmarks.onboarding

Everything is real: PostgreSQL, Prefect, S3, a coordinator's process, a federation of two sites. Each command is a process of
its own, so its start and its imports count. CPU seconds are those of the command and its children, not of the servers; on a
shared machine they are the number to compare. Afterwards it is counted what was charged and sent: nothing may be.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.round_overhead import set_up
from fedround import layout
from fedround.files import sha256_of
from fedround.privacy import ledger
from flows.one_machine import OneMachine
from site_workers import outbox
from site_workers.site import open_site

SITE, ROWS = "newcomer", 2000
SITES, ROUNDS = 2, 20
"""Of the federation that it joins."""


def main() -> None:
    """Set up, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=17_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        machine = OneMachine(Path(folder) / "home")
        try:
            result = measure(machine, options.parameters)
        finally:
            machine.stop()
    print(json.dumps(result, indent=2) if options.json else table(result))


def measure(machine: OneMachine, parameters: int) -> dict:
    """Seconds of each command by its name; the machine's load before and after, which is how many processes want a core; and
    what the new site was charged and has sent.
    """
    machine.start_servers(lambda _: None)
    set_up(machine, SITES, ROUNDS, parameters)
    machine.start_processes(lambda _: None)
    load = [os.getloadavg()[0]]
    commands = {name: timed(machine.home, arguments) for name, arguments in typed(machine)}
    load.append(os.getloadavg()[0])
    return {"parameters": parameters, "rows": ROWS, "commands": commands, "cores": os.cpu_count(), "load": load,
            **left(machine)}


def typed(machine: OneMachine) -> Iterator[tuple[str, list[str]]]:
    """The five commands; the third is known when the second has made a key."""
    train, validation = (write_rows(machine.home / f"{SITE}-{part}.parquet", count)
                         for part, count in (("train", ROWS), ("validation", ROWS // 4)))
    at = ["-c", str(machine.coordinator)]
    yield "federation invite", ["federation", "invite", SITE, *at, "--home", str(machine.home)]
    digests = [word for name in ("recipe.py", "contract.json")
               for word in ("--digest", sha256_of(machine.home / "agreed" / name))]
    yield "site init", ["site", "init", SITE, "--invitation", f"{SITE}.invitation.toml", "--dataset", "clients",
                        "--train", str(train), "--validation", str(validation), "--yes", *digests]
    yield "federation add", ["federation", "add", SITE, *at, "--weight", str(ROWS),
                             "--key", open_site(machine.home / SITE).identity.key]
    yield "site check", ["site", "check", SITE]
    yield "site rehearse", ["site", "rehearse", SITE]


def write_rows(path: Path, count: int) -> Path:
    """Rows as the recipe reads them."""
    pd.DataFrame({"x": np.random.default_rng(1).normal(size=count), "y": np.arange(count) % 2}).to_parquet(path)
    return path


def timed(folder: Path, arguments: list[str]) -> dict[str, float]:
    """Wall and CPU seconds of one command, which must succeed."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([sys.executable, "-m", "fedround_cli.main", *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall_s": time.monotonic() - began,
            "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def left(machine: OneMachine) -> dict[str, int]:
    """What the commands have left: charges in the ledger, answers in the outbox, objects below the site's prefix. Not counted
    is what `site check` writes there to try the credential: numbers drawn by chance.
    """
    site = open_site(machine.home / SITE)
    prefix = layout.site_prefix(SITE)
    return {"charges": len(ledger.read(site.ledger).charges), "answers": sum(1 for _ in outbox.entries(site.safe)),
            "objects": sum(not key.startswith(f"{prefix}preflight/") for key in site.store.list(prefix))}


def table(result: dict) -> str:
    """For people and for the how-to page."""
    before, after = result["load"]
    size = f"{result['parameters']:,} parameters, {result['rows']:,} rows, {result['cores']} cores"
    nothing = ", ".join(f"{result[name]} {name}" for name in ("charges", "answers", "objects"))
    lines = [f"{size}, load {before:.1f} before and {after:.1f} after; {nothing}", "",
             "| command | CPU s | wall s |", "|---|---|---|"]
    lines += [f"| `fedround {name}` | {one['cpu_s']:.1f} | {one['wall_s']:.1f} |"
              for name, one in result["commands"].items()]
    total = {unit: sum(one[unit] for one in result["commands"].values()) for unit in ("cpu_s", "wall_s")}
    return "\n".join([*lines, f"| **all five** | **{total['cpu_s']:.1f}** | **{total['wall_s']:.1f}** |"])


if __name__ == "__main__":
    main()
