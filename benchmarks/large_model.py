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
import json
import os
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

from benchmarks.large_model_floor import INPUTS, FloorOfASite, Floors, Parts, raw_client, used
from infra.settings import CoordinatorSettings, DataSettings, S3Credential, S3Settings, load_toml

RUN = "large"


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
        memory = {name: process.ask({"do": "memory"})["pss_mb"] for name, process in zip(names, processes, strict=True)}
        return {"sites": sites, "parameters": parameters, "unit": unit, **found, "site_pss_mb": memory,
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
    from tasks.invitations import invite_site
    from tasks.membership import add_member, create_coordinator

    agreed, generator = root / "agreed", np.random.default_rng(0)
    agreed.mkdir()
    (agreed / "recipe.py").write_text(RECIPE.format(inputs=INPUTS, hidden=round(parameters / (INPUTS + 2))))
    (agreed / "contract.json").write_text(json.dumps(CONTRACT))

    def rows(name: str, count: int) -> Path:
        path = agreed / f"{name}.parquet"
        pd.DataFrame({"x": generator.normal(size=count), "y": np.arange(count) % 2}).to_parquet(path)
        return path

    privacy = {"unit": "none"} if unit == "none" else {
        "unit": "site", "epsilon": 10.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": repeats + 1}
    test = rows("test", 200)
    create_coordinator(
        root / "coordinator", {
            "name": "large", "quorum": len(grants), "deadline_s": 300, "evaluation": {"noise_std": 50.0},
            "aggregation": {"rule": {"name": "weighted_mean"}},
            "training": {"local_steps": 1, "batch_size": 32, "learning_rate": 0.1}, "privacy": privacy},
        CoordinatorSettings(recipe="approved/recipe.py", contract="approved/contract.json", test_set="test.parquet",
                            api_url="http://127.0.0.1:9/api", store=store),
        agreed / "recipe.py", agreed / "contract.json", credential, test, None)
    for name, granted in grants.items():
        key = create_site(
            root / name, invite_site(root / "coordinator", name, granted),
            DataSettings(dataset="rows", train=str(rows(f"{name}-train", 200)), validation=str(rows(f"{name}-held", 50))),
            max_epsilon=1e3, delta_dp=1e-5, units=("record", "none") if unit == "none" else ("site",),
            max_epsilon_site=None if unit == "none" else 1e3, min_rows=50)
        add_member(root / "coordinator", name, key, 1.0)


class Site:
    """A site's process, seen from the one that measures."""

    def __init__(self, folder: Path):
        self.parts: dict[str, dict[str, float]] = {}
        self._process = subprocess.Popen([sys.executable, "-m", "benchmarks.large_model", "--as-site", str(folder)],
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
        from tasks.plan import plan_round
        from tasks.publish import publish
        from tasks.report import report
        from tasks.requests import NextRoundRequest

        coordinator, parts = self._coordinator, Parts()
        planned = plan_round(coordinator, NextRoundRequest(run=RUN))
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


def serve(folder: Path) -> None:
    """A site's process: one order a line on standard input, one answer a line on standard output."""
    from fedround.learning.recipe import load_recipe
    from infra.settings import SiteSettings
    from site_workers.limits import settle_in
    from site_workers.round import job
    from site_workers.site import open_site

    site = open_site(folder)
    settle_in(site.policy.limits)
    settings = load_toml(SiteSettings, folder / "site.toml")
    client, bucket = raw_client(settings.store, load_toml(S3Credential, folder / "keys" / "s3.toml"))
    floor = FloorOfASite(folder, client, bucket, settings.name, load_recipe(folder / settings.recipe))
    for line in sys.stdin:
        order, began = json.loads(line), family()
        if order["do"] == "round":
            said = job(site)({name: order[name] for name in ("run", "round", "attempt", "purpose")}, lambda: False)
            result: dict[str, Any] = {"said": said.message, "cpu_s": family() - began, "did": "round"}
        elif order["do"] == "floor":
            result = {"did": "floor", **floor(order["base"], order["unit"], order["turn"]), "cpu_s": family() - began}
        else:
            result = {"pss_mb": sum(one.memory_full_info().pss for one in (psutil.Process(), *children())) / 1e6}
        print(json.dumps(result), flush=True)


def family() -> float:
    """CPU seconds of this process and of that in which its recipe runs."""
    return used() + sum(sum(child.cpu_times()[:2]) for child in children())


def children() -> list[psutil.Process]:
    """Of this process."""
    return psutil.Process().children(recursive=True)


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
    lines += ["", f"a site's process holds {max(result['site_pss_mb'].values()):.0f} MB (PSS, with its recipe's)", ""]
    for who, what in (("site", result["parts"]["site"]), ("coordinator", result["parts"]["coordinator"])):
        lines += [f"{who}, last {name}: " + ", ".join(f"{part} {spent:.2f}" for part, spent in parts.items())
                  for name, parts in what.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
