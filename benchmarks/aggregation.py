"""The aggregation engine beside ByzFL and Flower: CPU seconds and memory, from files, in one run.

    python -m benchmarks.aggregation                                # 12 updates of 10,000,000 numbers, budget 128 MB
    python -m benchmarks.aggregation --rows 200 --budget 384 --ours # 8 GB of updates in less than 512 MB

Every case runs in a fresh process with one thread. Ours reads its rows from files while the clock runs; the peers have all
rows in memory before it starts, since that is how they work. The peers live in an environment of their own, which the
first run makes (a minute or two); they are no dependency of the project. Machines that are shared are noisy: look at CPU
seconds, and at ratios within one run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.progress import track

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "build" / "peers"
PINNED = ("byzfl==0.0.11", "flwr==1.41.0", "torch", "torchvision", "numpy>=2", "setuptools<81")
OURS = ("read", "mean", "median", "trimmed mean", "Meamed", "Krum", "multi-Krum", "geometric median", "MDA", "CAF", "DnC",
        "NNM + trimmed mean", "NNM + geometric median")
THEIRS = {"byzfl": ("mean", "median", "trimmed mean", "Krum", "multi-Krum", "geometric median", "NNM + trimmed mean"),
          "flower": ("mean", "median", "trimmed mean", "multi-Krum")}
Measured = dict[str, float]


def main() -> None:
    """Make the rows, measure every case, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--coordinates", type=int, default=10_000_000)
    parser.add_argument("--liars", type=int, help="f; a sixth of the rows if it is not said")
    parser.add_argument("--budget", type=int, default=128, help="megabytes")
    parser.add_argument("--repeat", type=int, default=3, help="the smallest of so many runs counts")
    parser.add_argument("--ours", action="store_true", help="only ours")
    parser.add_argument("--folder", type=Path, help="where the rows are kept for the time; it needs the room")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    liars = options.rows // 6 if options.liars is None else options.liars
    cases = [("ours", case) for case in OURS]
    if not options.ours:
        set_up_peers()
        cases += [(side, case) for side, names in THEIRS.items() for case in names]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write_rows(Path(folder), options.rows, options.coordinates)
        numbers = (options.rows, options.coordinates, liars, options.budget)
        found = {case: measure(*case, Path(folder), numbers, options.repeat)
                 for case in track(cases, "measuring", disable=not sys.stderr.isatty())}
    if options.json:
        print(json.dumps([{"side": side, "case": case, **value} for (side, case), value in found.items()], indent=2))
    else:
        print(f"{options.rows} updates of {options.coordinates:,} numbers, f = {liars}, budget {options.budget} MB\n")
        print(table(found))


def write_rows(folder: Path, rows: int, coordinates: int) -> None:
    """Gaussian numbers around a common direction."""
    generator = np.random.default_rng(0)
    for n in range(rows):
        with (folder / f"{n:03d}.bin").open("wb") as file:
            for start in range(0, coordinates, 1 << 22):
                block = generator.standard_normal(min(1 << 22, coordinates - start), dtype=np.float32)
                file.write((block + np.float32(0.1)).tobytes())


def set_up_peers() -> None:
    """An environment with the peers, and nothing of ours."""
    if (PEERS / "ready").exists():
        return
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "-q", "--clear", PEERS, "--python", sys.executable], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--python", PEERS / "bin" / "python", *PINNED], check=True)
    (PEERS / "ready").touch()


def measure(side: str, case: str, folder: Path, numbers: tuple[int, ...], repeat: int) -> Measured:
    """The run with the fewest CPU seconds, and the largest memory of all."""
    python = sys.executable if side == "ours" else str(PEERS / "bin" / "python")
    command = [python, str(ROOT / "benchmarks" / "aggregation_case.py"), side, case, str(folder), *map(str, numbers)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT) if side == "ours" else "", "OMP_NUM_THREADS": "1",
                   "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    runs: list[Measured] = []
    for _ in range(repeat):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{side}, {case}: {done.stderr[-2000:]}")
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    best = min(runs, key=lambda run: run["cpu_s"])
    return {**best, "peak_mb": max(run["peak_mb"] for run in runs), "extra_mb": max(run["extra_mb"] for run in runs)}


def table(found: dict[tuple[str, str], Measured]) -> str:
    """For people: ours, and how many times as much the peers need."""
    heads = ["rule", "ours: CPU s", "wall s", "peak RSS MB", "extra MB", "ByzFL: CPU s", "extra MB", "× CPU", "× memory",
             "Flower: CPU s", "extra MB", "× CPU"]
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * 11]
    for case in OURS:
        own = found["ours", case]
        cells = [case, f"{own['cpu_s']:.2f}", f"{own['wall_s']:.2f}", f"{own['peak_mb']:.0f}", f"{own['extra_mb']:.0f}"]
        cells += beside(own, found.get(("byzfl", case)), memory=True) + beside(own, found.get(("flower", case)), memory=False)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def beside(own: Measured, peer: Measured | None, *, memory: bool) -> list[str]:
    """A peer's cells."""
    if peer is None:
        return [""] * (4 if memory else 3)
    cells = [f"{peer['cpu_s']:.2f}", f"{peer['extra_mb']:.0f}", f"{peer['cpu_s'] / own['cpu_s']:.1f}"]
    return [*cells, f"{peer['extra_mb'] / max(own['extra_mb'], 1):.1f}"] if memory else cells


if __name__ == "__main__":
    main()
