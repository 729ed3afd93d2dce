"""What a round of a large model costs, beside the least that it can cost: CPU seconds of every process, in one run.

    python -m benchmarks.large_model                          # 3 sites, 10,000,000 parameters, no noise
    python -m benchmarks.large_model --unit site              # clipped and noised at the sites

The S3 server, the folders, keys, ledgers, signatures, reports and the model store are real, and every site is a process of
its own. Prefect is left out: what it costs does not depend on the model (`benchmarks.round_overhead` measures it, too).

The floor does, in the same processes and with the same S3 server, only what no round can leave out. A site reads the model
and hashes it once, takes one step of bare torch, clips (and noises, by the project's own noise), encodes, hashes once, writes
its outbox, sends once. The coordinator reads every update and hashes it once, aggregates (a weighted mean, in either), takes
the server's step, encodes, hashes once, sends once. No document, no check of what was read but the hash, no evaluation, no
report. Rounds and floors take turns, so that both meet the same noise of a shared machine.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from fedround import codec, optimizers
from fedround.aggregation.engine import ArrayNumbers, Row, aggregate
from fedround.aggregation.spec import Aggregation, WeightedMean
from fedround.codec import Schema
from fedround.learning.recipe import load_recipe
from fedround.learning.spec import FedAvg
from infra.settings import CoordinatorSettings, DataSettings, S3Credential, S3Settings, load_toml

RUN = "large"
INPUTS = 1000
CHUNK_BYTES = 8 << 20


def main() -> None:
    """Set up, warm up, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--parameters", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--unit", choices=("none", "site"), default="none")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--as-site", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_site is not None:
        serve(options.as_site)
        return
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options.sites, options.parameters, options.repeats, options.unit)
    print(json.dumps(result) if options.json else table(result))


def measure(root: Path, sites: int, parameters: int, repeats: int, unit: str) -> dict[str, Any]:
    """CPU seconds of a round and of the floor, by process kind; one number for each repeat, after one warm-up of both."""
    from infra.stack.ports import choose
    from infra.stack.seaweedfs import BUCKET, PORTS, SeaweedFS, endpoint

    server, ports = SeaweedFS(root / "s3"), choose(PORTS, {}, {})
    server.spawn(ports)
    processes: list[Site] = []
    try:
        server.wait_ready(ports["s3"])
        store = S3Settings(endpoint=endpoint(ports["s3"]), bucket=BUCKET)
        names = [f"site-{n:02d}" for n in range(sites)]
        grants = {name: server.grant_site(name, ports["s3"]) for name in names}
        set_up(root, store, server.coordinator_credential(), grants, parameters, repeats, unit)
        processes = [Site(root / name) for name in names]
        pid = next(process.pid for process in psutil.Process().children() if process.name().startswith("weed"))
        meter = Meter(psutil.Process(pid))
        rounds, floors = Rounds(root / "coordinator", processes), Floors(root / "coordinator", processes, unit)
        found: dict[str, list[dict[str, float]]] = {"round": [], "floor": []}
        for turn in range(repeats + 1):
            for name, work in (("floor", floors), ("round", rounds)):
                spent = meter.of(work)
                if turn > 0:
                    found[name].append(spent)
        memory = {name: process.ask({"do": "memory"})["rss_mb"] for name, process in zip(names, processes, strict=True)}
        return {"sites": sites, "parameters": parameters, "unit": unit, **found, "site_rss_mb": memory,
                "parts": {"site": processes[0].parts, "coordinator": {name: work.parts for name, work in (
                    ("floor", floors), ("round", rounds))}}}
    finally:
        for process in processes:
            process.stop()
        server.ask_to_stop()
        server.wait_stopped(ports)


def set_up(root: Path, store: S3Settings, credential: S3Credential, grants: dict[str, S3Credential], parameters: int,
           repeats: int, unit: str) -> None:
    """A federation of members whose training is next to nothing."""
    import pandas as pd

    from benchmarks.round_overhead import CONTRACT, RECIPE
    from site_workers.enrol import create_site
    from tasks.membership import add_member, create_coordinator, make_invitation

    agreed, generator = root / "agreed", np.random.default_rng(0)
    agreed.mkdir()
    (agreed / "recipe.py").write_text(RECIPE.format(inputs=INPUTS, hidden=round(parameters / (INPUTS + 2))))
    (agreed / "contract.json").write_text(json.dumps(CONTRACT))

    def rows(name: str, count: int) -> Path:
        path = agreed / f"{name}.parquet"
        pd.DataFrame({"x": generator.normal(size=count), "y": np.arange(count) % 2}).to_parquet(path)
        return path

    privacy = {"unit": "none"} if unit == "none" else {
        "unit": "site", "epsilon": 100.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": repeats + 1}
    test = rows("test", 200)
    create_coordinator(
        root / "coordinator", {
            "name": "large", "quorum": len(grants), "deadline_s": 300, "evaluation": {"noise_std": 50.0},
            "aggregation": {"rule": {"name": "weighted_mean"}},
            "training": {"local_steps": 1, "batch_size": 8, "learning_rate": 0.1}, "privacy": privacy},
        CoordinatorSettings(recipe="approved/recipe.py", contract="approved/contract.json", test_set="test.parquet",
                            api_url="http://127.0.0.1:9/api", store=store),
        agreed / "recipe.py", agreed / "contract.json", credential, test, None)
    for name, granted in grants.items():
        key = create_site(
            root / name, make_invitation(root / "coordinator", name, granted),
            DataSettings(dataset="rows", train=str(rows(f"{name}-train", 200)), validation=str(rows(f"{name}-held", 50))),
            max_epsilon=1e3, delta_dp=1e-5, units=("record", "none") if unit == "none" else ("site",),
            max_epsilon_site=None if unit == "none" else 1e3, min_rows=50)
        add_member(root / "coordinator", name, key, 1.0)


class Site:
    """A site's process, seen from the one that measures."""

    def __init__(self, folder: Path):
        self.parts: dict[str, dict[str, float]] = {}
        self._process = subprocess.Popen([sys.executable, __file__, "--as-site", str(folder)],
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(self, order: dict[str, Any]) -> None:
        """Begin; `hear` waits for the end."""
        print(json.dumps(order), file=self._process.stdin, flush=True)

    def hear(self) -> dict[str, Any]:
        """What the process says."""
        said: dict[str, Any] = json.loads(next(iter(self._process.stdout or ())))
        if "parts" in said:
            self.parts[said["did"]] = said["parts"]
        return said

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        """Both."""
        self.tell(order)
        return self.hear()

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(10)


class Meter:
    """CPU seconds of the S3 server, this process (the coordinator) and the sites."""

    def __init__(self, store: psutil.Process):
        self._store = store

    def of(self, work: Callable[[], float]) -> dict[str, float]:
        """What `work`, which returns the sites' seconds, takes."""
        own, store, began = used(), self._store.cpu_times(), time.monotonic()
        sites = work()
        wall, after = time.monotonic() - began, self._store.cpu_times()
        return {"store": after.user + after.system - store.user - store.system, "coordinator": used() - own, "sites": sites,
                "wall": wall}


def used() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


class Parts:
    """CPU seconds of the parts of one piece of work."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._at = used()

    def done(self, name: str) -> None:
        """What was used since the last call belongs to `name`."""
        now = used()
        self.spent[name] = self.spent.get(name, 0.0) + now - self._at
        self._at = now


class Rounds:
    """One real round after the other."""

    def __init__(self, folder: Path, sites: list[Site]):
        from tasks.coordinator import FOLDER_VARIABLE, current_coordinator

        os.environ[FOLDER_VARIABLE] = str(folder)
        self._coordinator, self._sites, self.parts = current_coordinator(), sites, dict[str, float]()

    def __call__(self) -> float:
        """Plan, have it answered by all sites at once, commit, evaluate, report. Returns the sites' CPU seconds."""
        import asyncio

        from tasks.aggregate import aggregate as aggregate_round
        from tasks.collect import collect
        from tasks.evaluate import evaluate
        from tasks.plan import RoundRequest, plan_round
        from tasks.publish import publish
        from tasks.report import report

        coordinator, parts = self._coordinator, Parts()
        planned = plan_round(coordinator, RoundRequest(run=RUN))
        parts.done("plan")
        for site in self._sites:
            site.tell({"do": "round", "run": RUN, "round": planned.plan.round, "attempt": planned.plan.attempt,
                       "purpose": "train"})
        seconds = sum(float(site.hear()["cpu_s"]) for site in self._sites)
        parts.done("wait")

        async def finished(among: set[str]) -> set[str]:
            return among

        collected = asyncio.run(collect(coordinator, planned, finished, lambda _: None))
        if len(collected.admitted) != len(self._sites):
            raise SystemExit(f"not everybody was admitted: {collected.refused} {collected.rejected}")
        parts.done("collect")
        aggregated = aggregate_round(coordinator, planned, collected)
        parts.done("aggregate")
        committed = publish(coordinator, planned, collected, aggregated)
        parts.done("publish")
        metrics = evaluate(coordinator, committed.commit)
        parts.done("evaluate")
        report(coordinator, planned, collected, committed, metrics, 0.0)
        parts.done("report")
        self.parts = parts.spent
        return seconds


class Floors:
    """The least that a round can do, again and again."""

    def __init__(self, folder: Path, sites: list[Site], unit: str):
        settings = load_toml(CoordinatorSettings, folder / "coordinator.toml")
        self._client, self._bucket = raw_client(settings.store, load_toml(S3Credential, folder / "keys" / "s3.toml"))
        self._sites, self._unit, self._turn, self.parts = sites, unit, 0, dict[str, float]()
        recipe = load_recipe(folder / settings.recipe, hashlib.sha256((folder / settings.recipe).read_bytes()).hexdigest())
        self._model = {name: tensor.detach().numpy().copy() for name, tensor in recipe.build_model().named_parameters()}
        self._base = "models/floor-0"
        self._send(self._base, codec.encode(self._model))

    def __call__(self) -> float:
        """Returns the sites' CPU seconds."""
        self._turn += 1
        parts, schema = Parts(), codec.schema_of(self._model)
        for site in self._sites:
            site.tell({"do": "floor", "base": self._base, "unit": self._unit, "turn": self._turn})
        heard = [site.hear() for site in self._sites]
        parts.done("wait")
        size, rows = codec.coordinates(schema), []
        for number, said in enumerate(heard):
            update_D = np.empty(size, np.float32)
            file = memoryview(update_D).cast("B")
            head, hasher, at = len(codec.header(schema)), hashlib.sha256(), 0
            for start in range(0, codec.size_bytes(schema), CHUNK_BYTES):
                chunk = self._client.get_object(Bucket=self._bucket, Key=said["key"],
                                                Range=f"bytes={start}-{start + CHUNK_BYTES - 1}")["Body"].read()
                hasher.update(chunk)
                data = memoryview(chunk)[head if start == 0 else 0:]
                file[at:at + len(data)] = data
                at += len(data)
            if hasher.hexdigest() != said["sha256"]:
                raise SystemExit("other bytes came back")
            rows.append(Row(f"site-{number:02d}", 1.0, ArrayNumbers(update_D)))
        parts.done("collect")
        done = aggregate(rows, Aggregation(rule=WeightedMean()), size, seed=bytes(32))
        parts.done("aggregate")
        self._model, _ = optimizers.step(self._model, None, done.delta_D, FedAvg(learning_rate=1.0, momentum=0.0))
        self._base = f"models/floor-{self._turn}"
        self._send(self._base, b"".join([codec.header(schema), *(memoryview(np.ascontiguousarray(self._model[spec.name]))
                                                                 .cast("B") for spec in schema)]))
        parts.done("publish")
        self.parts = parts.spent
        return sum(float(said["cpu_s"]) for said in heard)

    def _send(self, key: str, body: bytes) -> None:
        send(self._client, self._bucket, key, body, hashlib.sha256(body).digest())


def raw_client(store: Any, credential: S3Credential) -> tuple[Any, str]:
    """The S3 client with nothing switched on that hashes a body twice."""
    from botocore.config import Config
    from botocore.session import Session

    client = Session().create_client(
        "s3", region_name=store.region, endpoint_url=store.endpoint, aws_access_key_id=credential.access_key,
        aws_secret_access_key=credential.secret_key,
        config=Config(signature_version="s3v4", s3={"addressing_style": "path", "payload_signing_enabled": False}))
    return client, store.bucket


def send(client: Any, bucket: str, key: str, body: Any, sha256: bytes) -> None:
    """One request; the server checks the hash."""
    client.put_object(Bucket=bucket, Key=key, Body=body, IfNoneMatch="*", ChecksumSHA256=base64.b64encode(sha256).decode())


def serve(folder: Path) -> None:
    """A site's process: one order a line on standard input, one answer a line on standard output."""
    from infra.settings import SiteSettings
    from site_workers.limits import settle_in
    from site_workers.round import job
    from site_workers.site import open_site

    site = open_site(folder)
    settle_in(site.policy.limits)
    settings = load_toml(SiteSettings, folder / "site.toml")
    client, bucket = raw_client(settings.store, load_toml(S3Credential, folder / "keys" / "s3.toml"))
    floor = FloorOfASite(folder, client, bucket, settings.name, site.recipe)
    for line in sys.stdin:
        order, began = json.loads(line), used()
        if order["do"] == "round":
            said = job(site)({name: order[name] for name in ("run", "round", "attempt", "purpose")}, lambda: False)
            result: dict[str, Any] = {"said": said, "cpu_s": used() - began, "did": "round"}
        elif order["do"] == "floor":
            result = {"did": "floor", **floor(order["base"], order["unit"], order["turn"]), "cpu_s": used() - began}
        else:
            result = {"rss_mb": psutil.Process().memory_info().rss / 1e6}
        print(json.dumps(result), flush=True)


class FloorOfASite:
    """The least that a site can do for a round."""

    def __init__(self, folder: Path, client: Any, bucket: str, name: str, recipe: Any):
        self._path, self._client, self._bucket, self._name = folder / "floor", client, bucket, name
        self._recipe, self._model, self._schema = recipe, recipe.build_model(), Schema()

    def __call__(self, base: str, unit: str, turn: int) -> dict[str, Any]:
        """Read the model, take a step, send an update."""
        import torch

        from fedround.privacy.noise import GRID, stream

        parts = Parts()
        body = self._client.get_object(Bucket=self._bucket, Key=base)["Body"].read()
        hashlib.sha256(body).hexdigest()
        schema = tuple(sorted(codec.schema_of({name: tensor.detach().numpy() for name, tensor in
                                               self._model.named_parameters()}), key=lambda spec: spec.name))
        base_D = np.frombuffer(body, "<f4", offset=len(codec.header(schema)))
        parts.done("read")
        found = codec.unflatten(base_D.copy(), schema)
        parameters = {name: torch.from_numpy(array).requires_grad_() for name, array in found.items()}
        features = torch.zeros(8, INPUTS)
        features[:, 0] = torch.linspace(-1, 1, 8)
        loss = torch.func.functional_call(self._model, parameters, (features,)).square().sum()
        gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
        delta_D = np.concatenate([gradients[spec.name].numpy().ravel() for spec in schema])
        delta_D *= np.float32(-0.1 / 8)
        parts.done("train")
        if unit == "site":
            norm = float(np.sqrt(np.vdot(delta_D, delta_D)))
            cells_D = stream(bytes(range(32)), str(turn).encode()).normal(GRID, len(delta_D))
            for start in range(0, len(delta_D), 1 << 16):
                block = slice(start, start + (1 << 16))
                cells_D[block] += np.trunc(delta_D[block] * (GRID * min(1.0, 1.0 / max(norm, 1e-12))))
                delta_D[block] = cells_D[block] * (0.1 / GRID)
        parts.done("clip and noise")
        if not np.isfinite(delta_D).all():
            raise SystemExit("not finite")
        payload = b"".join([codec.header(schema), memoryview(delta_D).cast("B")])
        digest = hashlib.sha256(payload).digest()
        parts.done("encode and hash")
        self._path.write_bytes(payload)
        key = f"sites/{self._name}/floor-{turn}"
        with self._path.open("rb") as file:
            send(self._client, self._bucket, key, file, digest)
        parts.done("write and send")
        return {"key": key, "sha256": digest.hex(), "parts": parts.spent}


def table(result: dict[str, Any]) -> str:
    """For people: medians, and the ratio."""
    def middle(name: str, part: str) -> float:
        return statistics.median(spent[part] for spent in result[name])

    title = (f"{result['sites']} sites, {result['parameters']:,} parameters, unit {result['unit']}: medians of "
             f"{len(result['round'])}, Prefect left out")
    lines = [title, "", "| | floor | round | ratio |", "|---|---|---|---|"]
    for part in ("store", "coordinator", "sites"):
        low, high = middle("floor", part), middle("round", part)
        lines.append(f"| {part}, CPU s | {low:.2f} | {high:.2f} | {high / low:.2f} |")
    low, high = (statistics.median(sum(spent[part] for part in ("store", "coordinator", "sites")) for spent in result[name])
                 for name in ("floor", "round"))
    lines.append(f"| **all, CPU s** | **{low:.2f}** | **{high:.2f}** | **{high / low:.2f}** |")
    lines.append(f"| wall s | {middle('floor', 'wall'):.2f} | {middle('round', 'wall'):.2f} | |")
    lines += ["", f"a site's process holds {max(result['site_rss_mb'].values()):.0f} MB (resident)", ""]
    for who, what in (("site", result["parts"]["site"]), ("coordinator", result["parts"]["coordinator"])):
        lines += [f"{who}, last {name}: " + ", ".join(f"{part} {spent:.2f}" for part, spent in parts.items())
                  for name, parts in what.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
