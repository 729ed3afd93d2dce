"""The aggregation engine beside ByzFL and Flower, in one run: do they agree; CPU seconds and memory, from files.

    python -m benchmarks.aggregation                                # 12 updates of 10,000,000 numbers, budget 128 MB
    python -m benchmarks.aggregation --rows 200 --budget 384 --ours # 8 GB of updates in less than 512 MB

Agreement is looked at on 13 updates of unequal loudness, where every rule's choice is clear and no peer has a known defect.
Then every case is measured in a fresh process with one thread. Ours reads its rows from files while the clock runs; the
peers have all rows in memory before it starts, since that is how they work. The peers live in an environment of their
own, which the first run makes (a minute or two); they are no dependency of the project. Machines that are shared are
noisy: look at CPU seconds, and at ratios within one run. The cases take turns, a rule's sides one after the other, so that
a busy minute is everybody's.
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

from benchmarks.aggregation_case import COMMON

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "build" / "peers"
PINNED = ("byzfl==0.0.11", "flwr==1.41.0", "torch", "torchvision", "numpy>=2", "setuptools<81")
OURS = ("read", "w @ X", "mean", "median", "trimmed mean", "Meamed", "Krum", "multi-Krum", "Bulyan", "geometric median",
        "MDA", "SMEA", "CAF", "DnC", "NNM + trimmed mean", "NNM + geometric median", "gate + NNM + trimmed mean")
THEIRS = {"byzfl": ("mean", "median", "trimmed mean", "Krum", "multi-Krum", "geometric median", "MDA", "NNM + trimmed mean"),
          "flower": ("mean", "median", "trimmed mean", "multi-Krum", "Bulyan")}
MOST_ROWS_OF_SMEA = 24
"""With f a sixth of them: SMEA tries every subset."""

AGREEING = {"byzfl": ("mean", "median", "trimmed mean", "Meamed", "Krum", "multi-Krum", "converged geometric median", "MDA",
                      "MoNNA", "centered clipping", "ARC + trimmed mean", "NNM + trimmed mean"),
            "flower": ("mean", "median", "trimmed mean", "Krum", "multi-Krum", "Bulyan")}
"""Not SMEA and CAF: ByzFL takes one power step from a random vector for the eigenvector, and its answer changes from run to
run."""
Measured = dict[str, float]


def main() -> None:
    """Make the rows, measure every case, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--coordinates", type=int, default=10_000_000)
    parser.add_argument("--liars", type=int, help="f; a sixth of the rows if it is not said")
    parser.add_argument("--budget", type=int, default=128, help="megabytes")
    parser.add_argument("--repeat", type=int, default=2, help="rounds over all cases; the fewest CPU seconds of a case count")
    parser.add_argument("--ours", action="store_true", help="only ours")
    parser.add_argument("--cases", type=lambda given: given.split(","), help=f"of {', '.join(OURS)}; all unless it is said")
    parser.add_argument("--folder", type=Path, help="where the rows are kept for the time; it needs the room")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    liars = options.rows // 6 if options.liars is None else options.liars
    ours = [case for case in options.cases or OURS if case != "SMEA" or options.rows <= MOST_ROWS_OF_SMEA]
    sides = ("ours",) if options.ours else ("ours", *THEIRS)
    cases = [(side, case) for case in ours for side in sides if side == "ours" or case in THEIRS[side]]
    if not options.ours:
        set_up_peers()
        print(f"{agreement()}\n", file=sys.stderr if options.json else sys.stdout, flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write_rows(Path(folder), options.rows, options.coordinates)
        numbers = (options.rows, options.coordinates, liars, options.budget)
        turns = track(cases * options.repeat, "measuring", disable=not sys.stderr.isatty())
        runs = [(case, measure(*case, Path(folder), numbers)) for case in turns]
    found = {case: best([run for of, run in runs if of == case]) for case in cases}
    if options.json:
        print(json.dumps([{"side": side, "case": case, **value} for (side, case), value in found.items()], indent=2))
    else:
        print(f"{options.rows} updates of {options.coordinates:,} numbers, f = {liars}, budget {options.budget} MB\n")
        print(table(found))


def write_rows(folder: Path, rows: int, coordinates: int, *, louder: float = 0.0) -> None:
    """Gaussian numbers around a common direction; each row's noise is `louder` than the one before."""
    generator = np.random.default_rng(0)
    for n in range(rows):
        with (folder / f"{n:03d}.bin").open("wb") as file:
            for start in range(0, coordinates, 1 << 22):
                block = generator.standard_normal(min(1 << 22, coordinates - start), dtype=np.float32)
                file.write((block * np.float32(1 + louder * n) + np.float32(COMMON)).tobytes())


def set_up_peers() -> None:
    """An environment with the peers, and nothing of ours."""
    if (PEERS / "ready").exists():
        return
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "-q", "--clear", PEERS, "--python", sys.executable], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--python", PEERS / "bin" / "python", *PINNED], check=True)
    (PEERS / "ready").touch()


def agreement() -> str:
    """For people: the largest difference between our result and a peer's, relative to the largest number in ours."""
    with tempfile.TemporaryDirectory() as name:
        folder, numbers = Path(name), (13, 100_003, 2, 64)
        write_rows(folder, *numbers[:2], louder=0.15)
        found = {}
        for side, cases in {"ours": tuple(dict.fromkeys(AGREEING["byzfl"] + AGREEING["flower"])), **AGREEING}.items():
            run_case(side, ",".join(cases), folder, numbers)
            found[side] = dict(np.load(folder / f"{side}.npz"))
    lines = ["| rule | largest difference to ByzFL | to Flower |", "|---|---:|---:|"]
    for case, own_D in found["ours"].items():
        cells = [f"{np.abs(found[side][case] - own_D).max() / np.abs(own_D).max():.1e}" if case in found[side] else ""
                 for side in AGREEING]
        lines.append(f"| {' | '.join([case, *cells])} |")
    return "\n".join(lines)


def measure(side: str, case: str, folder: Path, numbers: tuple[int, ...]) -> Measured:
    """One run of one case."""
    measured: Measured = json.loads(run_case(side, case, folder, numbers).splitlines()[-1])
    return measured


def best(runs: list[Measured]) -> Measured:
    """The run with the fewest CPU seconds, and the largest memory of all."""
    fewest = min(runs, key=lambda run: run["cpu_s"])
    return {**fewest, "peak_mb": max(run["peak_mb"] for run in runs), "extra_mb": max(run["extra_mb"] for run in runs)}


def run_case(side: str, case: str, folder: Path, numbers: tuple[int, ...]) -> str:
    """What `benchmarks.aggregation_case` prints in a fresh process, one thread, and the environment of its side."""
    python = sys.executable if side == "ours" else str(PEERS / "bin" / "python")
    command = [python, str(ROOT / "benchmarks" / "aggregation_case.py"), side, case, str(folder), *map(str, numbers)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT) if side == "ours" else "", "OMP_NUM_THREADS": "1",
                   "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{side}, {case}: {done.stderr[-2000:]}")
    return done.stdout


def table(found: dict[tuple[str, str], Measured]) -> str:
    """For people: ours, and how many times as much the peers need."""
    heads = ["rule", "ours: CPU s", "wall s", "peak RSS MB", "extra MB", "ByzFL: CPU s", "extra MB", "× CPU", "× memory",
             "Flower: CPU s", "extra MB", "× CPU"]
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * 11]
    for case in (case for side, case in found if side == "ours"):
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
