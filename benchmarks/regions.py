"""A round of many sites with regional coordinators, beside the same round without: CPU seconds, bytes and wall time.

    python -m benchmarks.regions                              # 100 sites in five regions, 1,000,000 parameters
    python -m benchmarks.regions --masked                     # the same, and nobody sees a site's numbers

The sites are simulated: their updates are drawn numbers, with real keys, documents and signatures. All else is real: the S3
server, a process for each regional coordinator with a folder, a key and a credential of its own, the coordinator's steps in
a process of its own. What is measured begins when all sites have answered, and ends with the commit. Prefect is left out, and
so is the start of a process: regional coordinators are long-lived. With --masked all sites offer keys and deal shares before,
for 32 sums, and the coordinator has read them; what sites do to reveal is not measured.
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
SUM = {"name": "secure_sum", "consistency": "signed"}
"""How the round goes, and how many partial sums the coordinator computes again; None: there are no regions."""


def main() -> None:
    """Set up, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=100)
    parser.add_argument("--regions", type=int, default=5)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--masked", action="store_true", help="answers are added up under masks")
    parser.add_argument("--ways", type=int, default=len(WAYS), help="so many of the table's lines, from the first")
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
                                  options.parameters, check or 0, options.masked)
                     for n, (way, check) in enumerate([*WAYS.items()][:options.ways])}
        print(json.dumps(found) if options.json else table(found))


def measure(root: Path, sites: int, regions: int, parameters: int, check: int, masked: bool) -> dict[str, Any]:
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
        keys = set_up(root, store, server.coordinator_credential(), names, parameters, masked)
        add_regions(root, server, ports["s3"], names, regions)
        members = Members(root, keys)
        if masked:
            members.deal()
        members.train()
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
        if masked:
            for purpose in ("countersign", "reveal"):
                _hear(boss)                                  # members are asked
                members.about_sum(purpose)
                print("go on", file=boss.stdin, flush=True)
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


def set_up(root: Path, store: S3Settings, credential: S3Credential, names: list[str], parameters: int,
           masked: bool) -> dict[str, Any]:
    """A federation; returns the members' keys."""
    from benchmarks.round_overhead import CONTRACT, RECIPE
    from fedround.signing import Identity
    from tasks.membership import add_member, create_coordinator

    (root / "recipe.py").write_text(RECIPE.format(inputs=INPUTS, hidden=round(parameters / (INPUTS + 2))))
    (root / "contract.json").write_text(json.dumps(CONTRACT))
    count = len(names)
    visible = {"quorum": count, "aggregation": {"rule": {"name": "weighted_mean"}}, "privacy": {"unit": "none"},
               "training": {"local_steps": 1, "batch_size": 32, "learning_rate": 0.1}}
    summed = {"quorum": count - count // 4, "combine": {**SUM, "threshold": count - count // 4, "dropouts": count // 4,
                                                        "colluders": count // 4},
              "privacy": {"unit": "record", "epsilon": 5.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 20},
              "training": {"name": "union_step", "batch_size": 10 * count, "learning_rate": 0.1}}
    create_coordinator(
        root / "coordinator", {"name": "wide", "deadline_s": 600, "evaluation": {"noise_std": 50.0},
                               **(summed if masked else visible)},
        CoordinatorSettings(recipe="approved/recipe.py", contract="approved/contract.json", api_url="http://127.0.0.1:9/api",
                            store=store), root / "recipe.py", root / "contract.json", credential)
    keys = {name: Identity.generate() for name in names}
    for name, key in keys.items():
        add_member(root / "coordinator", name, key.key, 1.0, 200 if masked else None)
    return keys


def add_regions(root: Path, server: SeaweedFS, port: int, names: list[str], regions: int) -> None:
    """Regional coordinators with folders and credentials."""
    from fedround.regions.spec import Region
    from tasks.invitations import invite_region
    from tasks.membership import give_mandate
    from tasks.region import create_region

    for n in range(regions):
        name, members = f"region-{n}", names[n::regions]
        key = create_region(root / name, invite_region(root / "coordinator", name, server.grant_region(name, members, port)))
        give_mandate(root / "coordinator", Region(name=name, key=key, members=tuple(members)))


@dataclasses.dataclass
class Members:
    """All members, each a key and a secret: what they say is drawn, signed and put as sites put it."""

    root: Path
    keys: dict[str, Any]

    @property
    def coordinator(self) -> Any:
        """Opened anew."""
        from tasks.coordinator import open_coordinator

        return open_coordinator(self.root / "coordinator")

    def say(self, planned: Any, name: str, body: bytes | None, **said: object) -> None:
        """One member's signed answer, and the file beside it."""
        from fedround import __version__, codec, layout
        from fedround.records import Answer
        from fedround.sightings import sign_sighting
        from fedround.signing import seal
        from infra.stores import publish

        plan, store, key = planned.plan, self.coordinator.store, self.keys[name]
        where = name, plan.run, plan.round, plan.attempt, plan.asks.kind
        if body is not None:
            publish(store, layout.delta(*where[:4]) if plan.asks.kind == "train" and plan.asks.slot is None else
                    layout.payload(*where), body, sha256=codec.payload_of(body).sha256)
        publish(store, layout.answer(*where), seal(Answer(
            federation=plan.federation, run=plan.run, round=plan.round, attempt=plan.attempt, site=name, plan=planned.digest,
            asked=plan.asks.kind, log=plan.log, tool_version=__version__, ledger_head="0" * 64, charges=0,
            sighting=sign_sighting(plan, planned.digest, name, key), **said), key))

    def secret(self, name: str) -> bytes:
        """From which its masks and shares follow."""
        return bytes.fromhex(self.keys[name].key.removeprefix("ed25519:"))

    def deal(self) -> None:
        """Keys, and shares of what makes them."""
        from fedround import codec
        from fedround.records import OfferKeys
        from fedround.secure_sums.dealing import deal
        from fedround.secure_sums.keys import offer
        from infra.epochs import read_offered
        from tasks.ask import conclude
        from tasks.requests import NextRoundRequest
        from tasks.setting_up import next_question

        coordinator = self.coordinator
        while (planned := next_question(coordinator, NextRoundRequest(run=RUN))) is not None:
            asks = planned.plan.asks
            if not isinstance(asks, OfferKeys):
                offered = read_offered(coordinator.store, coordinator.key, coordinator.federation, RUN,
                                       planned.plan.federation_digest, asks.offered)
            for name in self.keys:
                secret, threshold = self.secret(name), planned.plan.agreed.combine.threshold
                said = (offer(secret, bytes.fromhex(planned.digest), asks.slots) if isinstance(asks, OfferKeys) else
                        deal(secret, bytes.fromhex(offered.epoch), name, offered.roster, threshold))
                self.say(planned, name, said.to_bytes(), material=codec.payload_of(said.to_bytes()))
            conclude(coordinator, planned, asyncio.run(_collect(coordinator, planned)))

    def train(self) -> None:
        """The plan, and every member's answer: drawn numbers, under masks where the plan names keys."""
        from fedround import codec
        from fedround.privacy.spec import NoMechanism
        from fedround.records import Masked, Update
        from fedround.rounds import summed
        from fedround.rounds.offer import offer
        from fedround.secure_sums.masking import mask
        from tasks.plan import plan_round
        from tasks.requests import NextRoundRequest

        coordinator, generator = self.coordinator, np.random.default_rng(0)
        planned = plan_round(coordinator, NextRoundRequest(run=RUN))
        plan = planned.plan
        for name in self.keys:
            if plan.asks.slot is None:
                drawn_D = generator.normal(scale=1e-3, size=codec.coordinates(plan.sent)).astype(np.float32)
                body = codec.encode(codec.unflatten(drawn_D, plan.sent))
                self.say(planned, name, body, update=Update(
                    base_model=plan.base_model, schema_digest=codec.schema_digest(plan.sent), payload=codec.payload_of(body),
                    mechanism=NoMechanism()))
                continue
            epoch = _epoch(coordinator, planned)
            drawn_S = generator.integers(0, 1000, sum(summed.lengths(plan.asks, codec.coordinates(plan.sent))), np.uint32)
            body = mask(drawn_S, self.secret(name), bytes.fromhex(epoch.offered.epoch), name, epoch.offered.roster,
                        plan.asks.slot.number, bytes.fromhex(planned.digest)).astype("<u4").tobytes()
            self.say(planned, name, body, masked=Masked(
                payload=codec.payload_of(body), length=len(drawn_S),
                mechanisms=offer(plan.asks, plan.agreed, 1, lambda _: True).mechanisms))

    def about_sum(self, purpose: str) -> None:
        """Sign who is in the sum, or reveal what takes the masks off it."""
        from fedround import codec
        from fedround.secure_sums.revealing import reveal
        from tasks import epochs
        from tasks.plan import Planned, plan_round
        from tasks.requests import NextRoundRequest

        coordinator = self.coordinator
        planned = plan_round(coordinator, NextRoundRequest(run=RUN))
        epoch, slot = _epoch(coordinator, planned), planned.plan.asks.slot
        plan, named = epochs.about_sum(coordinator, planned.plan, planned.digest, purpose)
        for name in self.keys:
            if purpose == "countersign":
                self.say(Planned(plan, named, planned.parent), name, None)
                continue
            body = reveal(self.secret(name), bytes.fromhex(epoch.offered.epoch), name, epoch.offered.roster, epoch.dealt,
                          slot.number, plan.cohort, plan.asks.dropped, plan.agreed.combine.threshold).to_bytes()
            self.say(Planned(plan, named, planned.parent), name, body, material=codec.payload_of(body))


def _epoch(coordinator: Any, planned: Any) -> Any:
    """The keys that mask the answers, read once by each process."""
    from infra.epochs import known_epoch

    plan = planned.plan
    return known_epoch(coordinator.store, coordinator.key, coordinator.federation, plan.run, plan.federation_digest,
                       plan.asks.slot.dealt)


async def _collect(coordinator: Any, planned: Any) -> Any:
    """What all have said."""
    from tasks.collect import collect

    async def all_of(among: set[str]) -> set[str]:
        return among

    return await collect(coordinator, planned, all_of, lambda _: None)


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
    from tasks.coordinator import open_coordinator
    from tasks.gather import gather
    from tasks.plan import plan_round
    from tasks.publish import publish
    from tasks.requests import NextRoundRequest
    from tasks.unmask import plan_countersign, plan_reveal, unmask_sum

    coordinator, traffic = open_coordinator(folder), Traffic()
    planned = plan_round(coordinator, NextRoundRequest(run=RUN))
    if masked := planned.plan.asks.slot is not None:
        _epoch(coordinator, planned)
    coordinator = dataclasses.replace(coordinator, store=Metered(coordinator.store, traffic),
                                      settings=coordinator.settings.model_copy(update={"check_regions": check}))
    _say({"ready": True})
    sys.stdin.readline()
    before, began = used(), time.monotonic()

    async def none_of(among: set[str]) -> set[str]:
        return set()

    def members_do(asked: Any) -> Any:
        _say({"asked": True})
        sys.stdin.readline()
        return asyncio.run(_collect(coordinator, asked))

    collected = asyncio.run(_collect(coordinator, planned))
    if planned.plan.by_region:
        collected = asyncio.run(gather(coordinator, planned, collected, none_of))
    if masked:
        listed = plan_countersign(coordinator, planned, collected)
        reveal = plan_reveal(coordinator, planned, collected, listed, members_do(listed))
        collected = unmask_sum(coordinator, planned, collected, reveal, members_do(reveal))
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
