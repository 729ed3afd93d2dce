"""A round of many sites with regional coordinators, beside the same round without: CPU seconds, bytes and wall time.

    python -m benchmarks.regions                              # 100 sites in five regions, 1,000,000 parameters

The sites are simulated: their updates are drawn numbers, with real keys, documents and signatures. All else is real: the S3
server, a process for each regional coordinator with a folder, a key and a credential of its own, the coordinator's steps in
a process of its own. What is measured begins when all sites have answered, and ends with the commit. Prefect is left out, and
so is the start of a process: regional coordinators are long-lived.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.large_model_floor import INPUTS, used
from infra.settings import CoordinatorSettings, S3Credential, S3Settings
from infra.stack.ports import choose
from infra.stack.seaweedfs import BUCKET, PORTS, SeaweedFS, endpoint

RUN = "wide"
WAYS = {"flat": None, "regions": 0, "regions, one checked": 1}
"""How the round goes, and how many partial sums the coordinator computes again; None: there are no regions."""


def main() -> None:
    """Set up, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=100)
    parser.add_argument("--regions", type=int, default=5)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--as-region", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--as-coordinator", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--check", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_region is not None:
        region(options.as_region)
    elif options.as_coordinator is not None:
        coordinate(options.as_coordinator, options.check)
    else:
        os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with tempfile.TemporaryDirectory() as folder:
            found = {way: measure(Path(folder) / str(n), options.sites, 0 if check is None else options.regions,
                                  options.parameters, check or 0) for n, (way, check) in enumerate(WAYS.items())}
        print(json.dumps(found) if options.json else table(found))


def measure(root: Path, sites: int, regions: int, parameters: int, check: int) -> dict[str, Any]:
    """One round. regions: 0: none."""
    import shutil

    root.mkdir()
    server, ports = SeaweedFS(root / "s3"), choose(PORTS, {}, {})
    server.spawn(ports)
    children: list[subprocess.Popen[str]] = []
    try:
        server.wait_ready(ports["s3"])
        store = S3Settings(endpoint=endpoint(ports["s3"]), bucket=BUCKET)
        names = [f"site-{n:03d}" for n in range(sites)]
        keys = set_up(root, store, server.coordinator_credential(), names, parameters)
        add_regions(root, server, ports["s3"], names, regions)
        answer(root, keys, parameters)
        pid = next(process.pid for process in psutil.Process().children() if process.name().startswith("weed"))
        weed, folder = psutil.Process(pid), root / "coordinator"
        children = [_child("--as-region", root / f"region-{n}") for n in range(regions)]
        boss = _child("--as-coordinator", folder, "--check", str(check))
        children.append(boss)
        for child in children:
            _hear(child)                                     # opened, and waits
        before, began = weed.cpu_times(), time.monotonic()
        for child in children:
            print("begin", file=child.stdin, flush=True)
        told = [_hear(child) for child in children]
        wall, after = time.monotonic() - began, weed.cpu_times()
        return {"wall": wall, "coordinator": told[-1], "regions": told[:-1],
                "store_cpu": after.user + after.system - before.user - before.system}
    finally:
        for child in children:
            child.terminate()
            child.wait(10)
        server.ask_to_stop()
        server.wait_stopped(ports)
        shutil.rmtree(root, ignore_errors=True)


def set_up(root: Path, store: S3Settings, credential: S3Credential, names: list[str], parameters: int) -> dict[str, Any]:
    """A federation; returns the members' keys."""
    from benchmarks.round_overhead import CONTRACT, RECIPE
    from fedround.signing import Identity
    from tasks.membership import add_member, create_coordinator

    (root / "recipe.py").write_text(RECIPE.format(inputs=INPUTS, hidden=round(parameters / (INPUTS + 2))))
    (root / "contract.json").write_text(json.dumps(CONTRACT))
    create_coordinator(
        root / "coordinator", {
            "name": "wide", "quorum": len(names), "deadline_s": 600, "evaluation": {"noise_std": 50.0},
            "aggregation": {"rule": {"name": "weighted_mean"}}, "privacy": {"unit": "none"},
            "training": {"local_steps": 1, "batch_size": 32, "learning_rate": 0.1}},
        CoordinatorSettings(recipe="approved/recipe.py", contract="approved/contract.json", api_url="http://127.0.0.1:9/api",
                            store=store), root / "recipe.py", root / "contract.json", credential)
    keys = {name: Identity.generate() for name in names}
    for name, key in keys.items():
        add_member(root / "coordinator", name, key.key, 1.0)
    return keys


def add_regions(root: Path, server: SeaweedFS, port: int, names: list[str], regions: int) -> None:
    """Regional coordinators with folders and credentials."""
    from fedround.regions.spec import Region
    from tasks.membership import give_mandate, invite_region
    from tasks.region import create_region

    for n in range(regions):
        name, members = f"region-{n}", names[n::regions]
        key = create_region(root / name, invite_region(root / "coordinator", name),
                            server.grant_region(name, members, port))
        give_mandate(root / "coordinator", Region(name=name, key=key, members=tuple(members)))


def answer(root: Path, keys: dict[str, Any], parameters: int) -> None:
    """The plan, and every site's answer: drawn numbers, signed."""
    from fedround import __version__, codec, layout
    from fedround.privacy.spec import NoMechanism
    from fedround.records import Answer, Update
    from fedround.sightings import sign_sighting
    from fedround.signing import seal
    from infra.stores import publish
    from tasks.coordinator import open_coordinator
    from tasks.plan import NextRoundRequest, plan_round

    coordinator, generator = open_coordinator(root / "coordinator"), np.random.default_rng(0)
    planned = plan_round(coordinator, NextRoundRequest(run=RUN))
    plan, store = planned.plan, coordinator.store
    for name, key in keys.items():
        drawn_D = generator.normal(scale=1e-3, size=codec.coordinates(plan.sent)).astype(np.float32)
        body = codec.encode(codec.unflatten(drawn_D, plan.sent))
        said = Answer(
            federation=plan.federation, run=plan.run, round=plan.round, attempt=plan.attempt, site=name, plan=planned.digest,
            asked="train", log=plan.log, tool_version=__version__, ledger_head="0" * 64, charges=0,
            sighting=sign_sighting(plan, planned.digest, name, key), update=Update(
                base_model=plan.base_model, schema_digest=codec.schema_digest(plan.sent), payload=codec.payload_of(body),
                mechanism=NoMechanism()))
        publish(store, layout.delta(name, plan.run, plan.round, plan.attempt), body, sha256=said.update.payload.sha256
                if said.update is not None else None)
        publish(store, layout.answer(name, plan.run, plan.round, plan.attempt, "train"), seal(said, key))


def region(folder: Path) -> None:
    """A regional coordinator's process: one round."""
    from infra.stores import Metered, Traffic
    from tasks.region import open_region, serve

    post, traffic = open_region(folder), Traffic()
    post = dataclasses.replace(post, store=Metered(post.store, traffic))
    _say({"ready": True})
    sys.stdin.readline()
    before, began = used(), time.monotonic()
    serve(post, RUN, 1, 1)
    _say({"cpu": used() - before, "wall": time.monotonic() - began, "received": traffic.received_bytes,
          "sent": traffic.sent_bytes, "calls": traffic.calls})


def coordinate(folder: Path, check: int) -> None:
    """The coordinator's process: from the first answer that it reads to the commit."""
    from infra.stores import Metered, Traffic
    from tasks.aggregate import aggregate
    from tasks.collect import collect
    from tasks.coordinator import open_coordinator
    from tasks.gather import gather
    from tasks.plan import NextRoundRequest, plan_round
    from tasks.publish import publish

    coordinator, traffic = open_coordinator(folder), Traffic()
    planned = plan_round(coordinator, NextRoundRequest(run=RUN))
    coordinator = dataclasses.replace(coordinator, store=Metered(coordinator.store, traffic),
                                      settings=coordinator.settings.model_copy(update={"check_regions": check}))
    _say({"ready": True})
    sys.stdin.readline()
    before, began = used(), time.monotonic()

    async def all_of(among: set[str]) -> set[str]:
        return among

    async def none_of(among: set[str]) -> set[str]:
        return set()

    collected = asyncio.run(collect(coordinator, planned, all_of, lambda _: None))
    if planned.plan.by_region:
        collected = asyncio.run(gather(coordinator, planned, collected, none_of))
    made = publish(coordinator, planned, collected, aggregate(coordinator, planned, collected))
    _say({"cpu": used() - before, "wall": time.monotonic() - began, "received": traffic.received_bytes,
          "sent": traffic.sent_bytes, "calls": traffic.calls, "updates": len(made.commit.updates)})


def _child(*options: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "benchmarks.regions", *map(str, options)], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)


def _say(told: dict[str, Any]) -> None:
    print(json.dumps(told), flush=True)


def _hear(child: subprocess.Popen[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(next(iter(child.stdout or ())))
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| | coordinator, CPU s | into it, MB | each region, CPU s | into it, MB | store, CPU s | wall, s |",
             "|---|---:|---:|---:|---:|---:|---:|"]
    for way, told in found.items():
        regions, boss = told["regions"], told["coordinator"]

        def mean(what: str, regions: list[dict[str, Any]] = regions) -> float:
            return sum(one[what] for one in regions) / len(regions) if regions else 0.0

        lines.append(f"| {way} | {boss['cpu']:.2f} | {boss['received'] / 1e6:.1f} | {mean('cpu'):.2f} | "
                     f"{mean('received') / 1e6:.1f} | {told['store_cpu']:.2f} | {told['wall']:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
