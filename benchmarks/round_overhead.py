"""What a round costs beyond training: CPU seconds, wall time and memory of every part, with 12 real site processes.

    python -m benchmarks.round_overhead                       # 17,000 parameters
    python -m benchmarks.round_overhead --parameters 10000000

Everything is real: PostgreSQL, Prefect, S3, a coordinator process, a process per site, signatures, ledgers, reports and
the model store. Training is one step on a few rows. CPU seconds are those of the whole process tree; on a shared
machine they are the number to compare. Memory is PSS (shared pages counted once) beside RSS (counted in each process).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from flows.one_machine import Founding, OneMachine, SiteToMake
from infra.stack.processes import recorded

WARM_UP_ROUNDS = 2

RECIPE = '''"""As many parameters as asked for."""
import numpy as np
from torch import nn

NAME = "wide"
INPUTS = {inputs}
HIDDEN = {hidden}


def features(rows):
    features = np.zeros((len(rows), INPUTS), np.float32)
    features[:, 0] = rows["x"]
    return features


def labels(rows):
    return rows["y"].to_numpy(np.int64)


def build_model():
    return nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1))
'''
CONTRACT = {"name": "wide", "checks": [
    {"id": "binary", "type": "expect_column_values_to_be_in_set", "kwargs": {"column": "y", "value_set": [0, 1]}}]}


def main() -> None:
    """Set up, warm up, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--parameters", type=int, default=17_000)
    parser.add_argument("--one-run-per-site", action="store_true", help="one flow run of a site for the whole campaign")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        machine = OneMachine(Path(folder) / "home")
        try:
            result = measure(machine, options.sites, options.rounds, options.parameters, options.one_run_per_site)
        finally:
            machine.stop()
    print(json.dumps(result, indent=2) if options.json else table(result))


def measure(machine: OneMachine, sites: int, rounds: int, parameters: int, one_run_per_site: bool = False) -> dict:
    """Run warm-up rounds, then `rounds` rounds, and take the difference of every process's counters."""
    machine.start_servers(lambda _: None)
    set_up(machine, sites, WARM_UP_ROUNDS + rounds, parameters)
    coordinator = machine.start_processes(lambda _: None)
    train(coordinator, WARM_UP_ROUNDS, one_run_per_site)
    before, began = cpu_seconds(machine), time.monotonic()
    train(coordinator, WARM_UP_ROUNDS + rounds, one_run_per_site)
    wall, after = time.monotonic() - began, cpu_seconds(machine)
    from tasks.report import records

    seconds = [record.seconds for record in records(coordinator, "bench")[WARM_UP_ROUNDS:]]
    cpu = {part: (after[part] - before[part]) / rounds for part in after}
    return {"sites": sites, "rounds": rounds, "parameters": parameters, "cpu_s": cpu, "cpu_s_total": sum(cpu.values()),
            "wall_s": wall / rounds, "round_wall_s_median": float(np.median(seconds)), "memory_mb": memory(machine)}


def set_up(machine: OneMachine, sites: int, rounds: int, parameters: int) -> None:
    """A federation whose training is next to nothing."""
    inputs = 100 if parameters < 1_000_000 else 1000
    agreed = machine.home / "agreed"
    agreed.mkdir(parents=True)
    (agreed / "recipe.py").write_text(RECIPE.format(inputs=inputs, hidden=round(parameters / (inputs + 2))))
    (agreed / "contract.json").write_text(json.dumps(CONTRACT))
    generator = np.random.default_rng(0)

    def write(path: Path, count: int) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"x": generator.normal(size=count), "y": np.arange(count) % 2}).to_parquet(path)
        return path

    members = [SiteToMake(f"site-{n:02d}", write(machine.home / f"data/{n}/train.parquet", 200),
                          write(machine.home / f"data/{n}/validation.parquet", 50), 1.0) for n in range(sites)]
    small = parameters < 1_000_000
    machine.set_up(Founding({
        "name": "bench", "quorum": sites, "deadline_s": 300,
        "evaluation": {"noise_std": 50.0},
        "training": {"local_steps": 1, "batch_size": 32, "learning_rate": 0.1},
        "privacy": {"unit": "record", "epsilon": 5.0, "delta_dp": 1e-5, "rounds": rounds} if small else {"unit": "none"},
    }, agreed / "recipe.py", agreed / "contract.json", write(machine.home / "data/test.parquet", 200)),
        members, max_epsilon=5.0, delta_dp=1e-5, units=("record",) if small else ("record", "none"))


def train(coordinator: object, rounds: int, one_run_per_site: bool = False) -> None:
    """Until the run has this many rounds."""
    from fedround_cli.campaign import show_campaign

    asyncio.run(show_campaign(coordinator, "federated-training", {
        "run": "bench", "rounds": rounds, "one_run_per_site": one_run_per_site}, quiet=True))


def parts(machine: OneMachine) -> dict[str, list[psutil.Process]]:
    """Every process of the federation, by part."""
    from infra.stack import LocalStack

    info = LocalStack.find(machine.home)
    named = {**(info.pids if info is not None else {}), **recorded(machine.home)}
    trees = {name: [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)] for name, pid in named.items()}
    return {"server": trees["prefect"], "database": trees["postgres"], "store": trees["s3"],
            "coordinator": trees["coordinator"], "sites": trees["sites"]}


def cpu_seconds(machine: OneMachine) -> dict[str, float]:
    """User and system time so far, of living processes and of children that have ended."""
    return {part: sum(sum(process.cpu_times()[:4]) if n == 0 else sum(process.cpu_times()[:2])
                      for n, process in enumerate(tree)) for part, tree in parts(machine).items()}


def memory(machine: OneMachine) -> dict[str, dict[str, float]]:
    """Megabytes of every part, and the largest single site process."""
    result = {}
    for part, tree in parts(machine).items():
        full = [process.memory_full_info() for process in tree]
        result[part] = {"pss": sum(m.pss for m in full) / 1e6, "rss": sum(m.rss for m in full) / 1e6}
        if part == "sites":
            result["largest site"] = {"pss": max(m.pss for m in full[1:]) / 1e6, "rss": max(m.rss for m in full[1:]) / 1e6}
    result["all"] = {unit: sum(m[unit] for name, m in result.items() if name != "largest site") for unit in ("pss", "rss")}
    return result


def table(result: dict) -> str:
    """For people and for the README."""
    title = (f"{result['sites']} sites, {result['parameters']:,} parameters, {result['rounds']} rounds after "
             f"{WARM_UP_ROUNDS} of warm-up")
    lines = [title, "", "| part | CPU s a round | PSS MB | RSS MB |", "|---|---|---|---|"]
    for part, seconds in result["cpu_s"].items():
        m = result["memory_mb"][part]
        lines.append(f"| {part} | {seconds:.2f} | {m['pss']:.0f} | {m['rss']:.0f} |")
    m, site = result["memory_mb"]["all"], result["memory_mb"]["largest site"]
    lines.append(f"| **all** | **{result['cpu_s_total']:.2f}** | **{m['pss']:.0f}** | {m['rss']:.0f} |")
    lines.append(f"\nwall: {result['round_wall_s_median']:.2f} s a round (median), {result['wall_s']:.2f} s with what lies "
                 f"between rounds; largest site process {site['pss']:.0f} MB PSS, {site['rss']:.0f} MB RSS")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
