"""Aggregating updates of as many numbers as asked for: CPU seconds and memory, a process for each rule.

    python -m benchmarks.many_numbers --numbers 1000000000 --sites 3 --folder DIR     # needs 4 bytes a number and site there

The first update lies in a store in a folder and is brought to the coordinator's spool, as a round does it: chunk by chunk,
each held against its digest. The others are written to the spool as they are. Every rule then goes over the same files,
within the coordinator's default budget. Memory is the most that the process has held, less what it held when it began, and
less the result: 4 bytes a number.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fedround.aggregation.engine import FileNumbers, Row, aggregate
from fedround.aggregation.rules import CoordinateMedian, Rule, TrimmedMean, WeightedMean
from fedround.aggregation.spec import Aggregation, NearestNeighbourMixing
from fedround.codec import CHUNK_BYTES, Form
from infra.settings import CoordinatorSettings
from infra.stores import DirectoryStore
from tasks import spool
from validation.payloads import Intake

BUDGET = CoordinatorSettings.model_fields["memory_budget_mb"].default << 20
BLOCK = 1 << 24
RULES: dict[str, tuple[str, Rule, bool]] = {
    "mean": ("weighted mean", WeightedMean(), False),
    "median": ("median of each coordinate", CoordinateMedian(), False),
    "trimmed": ("nearest neighbours, then a trimmed mean (f = 1)", TrimmedMean(f=1), True)}


def main() -> None:
    """Write the updates, then a process for each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--numbers", type=int, default=10_000_000)
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where there is space")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step is not None:
        print(json.dumps(step(options.step, options.folder, options.numbers, options.sites)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write(Path(folder), options.numbers, options.sites)
        print(f"{options.sites} updates of {options.numbers:,} numbers, a budget of {BUDGET >> 20} MiB\n")
        print("| | CPU s | wall s | MB beside the result |\n|---|---|---|---|")
        for name in ("fetch", *RULES):
            done = subprocess.run([sys.executable, "-m", "benchmarks.many_numbers", "--step", name, "--folder", folder,
                                   "--numbers", str(options.numbers), "--sites", str(options.sites)],
                                  check=True, stdout=subprocess.PIPE)
            said = json.loads(done.stdout)
            print(f"| {said['what']} | {said['cpu_s']:.1f} | {said['wall_s']:.0f} | {said['held_mb']:.0f} |", flush=True)


def write(folder: Path, numbers: int, sites: int) -> None:
    """One block of noise for each site, again and again, its sign turning."""
    for site in range(sites):
        block = np.random.default_rng(site).standard_normal(min(BLOCK, numbers), np.float32)
        path = folder / "store" / "delta" if site == 0 else folder / f"{site}"
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            for turn, start in enumerate(range(0, numbers, BLOCK)):
                file.write(memoryview(block[:numbers - start] * np.float32(1 - 2 * (turn % 2))))


def step(name: str, folder: Path, numbers: int, sites: int) -> dict[str, object]:
    """What one step takes."""
    before, began, cpu = held_mb(), time.monotonic(), cpu_s()
    if name == "fetch":
        what, result_mb = "bring one update from the store in a folder to the spool", 0.0
        source, chunks, whole = folder / "store" / "delta", [], hashlib.sha256()
        with source.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                whole.update(chunk)
                chunks.append(hashlib.sha256(chunk).hexdigest())
        began, cpu = time.monotonic(), cpu_s()
        intake = Intake(Form(b"", 4 * numbers), whole.hexdigest(), "an update", tuple(chunks))
        spool.fetch(DirectoryStore(folder / "store"), "delta", intake, folder / "0")
    else:
        what, rule, mixes = RULES[name]
        how = Aggregation(mixing=(NearestNeighbourMixing(f=1),) if mixes else (), rule=rule)
        rows = [Row(f"site-{site}", 1.0, FileNumbers(folder / f"{site}", 0)) for site in range(sites)]
        done = aggregate(rows, how, numbers, memory_budget_bytes=BUDGET, seed=bytes(32))
        result_mb = done.delta_D.nbytes / 1e6
    return {"what": what, "cpu_s": cpu_s() - cpu, "wall_s": time.monotonic() - began,
            "held_mb": max(0.0, held_mb() - before - result_mb)}


def cpu_s() -> float:
    """Of this process."""
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])


def held_mb() -> float:
    """The most that this process has held so far."""
    told = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(told.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
