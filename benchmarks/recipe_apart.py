"""What it costs that a recipe runs in a process of its own, beside the same work in this one; fills docs/operating/site.md.

    python -m benchmarks.recipe_apart [--turns 3]

A round is training with noise for records, and scores of held-out rows: 10 steps of 256 rows, 2,500 rows and 500 held out, 23
columns. One thread; both in turns in one run, of each the quickest; processor seconds of both processes together.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from benchmarks.pages import fill, table
from fedround.learning.evaluate import scored_rows
from fedround.learning.examples import Examples
from fedround.learning.guard import UNGUARDED
from fedround.learning.lesson import Lesson
from fedround.learning.recipe import Recipe, initial_tensors, load_recipe
from fedround.learning.spec import LocalTraining
from fedround.learning.train import train
from fedround.privacy.noise import stream
from fedround.privacy.spec import DpSgd
from site_workers.apart.host import Host
from site_workers.policy import Limits

PAGE = Path("docs/operating/site.md")
COLUMNS, ROWS, HELD_OUT, STEPS, BATCH = 23, 2500, 500, 10, 256
WIDTHS = (32, 4096, 40_000)
TEXT = """import numpy as np
from torch import nn
NAME = "wide"
def features(rows): return rows.to_numpy(np.float32)
def labels(rows): return rows["y"].to_numpy(np.int64)
def build_model(): return nn.Sequential(nn.Linear({columns}, {width}), nn.ReLU(), nn.Linear({width}, 1))
"""
IMPORTED = """
import psutil, sys
import site_workers.round, site_workers.worker, infra.worker_process
{torch}
print(psutil.Process().memory_full_info().uss, 'torch' in sys.modules)
"""


def main() -> None:
    """Measure, and fill the page."""
    parser = argparse.ArgumentParser(description="What a recipe costs that runs in a process of its own.")
    parser.add_argument("--turns", type=int, default=3)
    turns, rows = parser.parse_args().turns, []
    for width in WIDTHS:
        found = measured(width, turns)
        rows.append([f"{found['numbers']:,.0f} numbers", *(f"{found[name]:.3g}" for name in (
            "here cpu", "apart cpu", "here wall", "apart wall", "start cpu", "start wall", "memory"))])
    without, with_torch = (json.loads(own_memory(torch)) for torch in ("", "import torch, torch.func, torch.nn"))
    head = ("a round of", "here, CPU s", "apart, CPU s", "here, s", "apart, s", "start, CPU s", "start, s", "its process, MB")
    told = table(head, rows) + (
        f"\n\nA site's process takes {without / 1e6:.0f} MB of its own before any round, and {with_torch / 1e6:.0f} MB with "
        "torch, which it needs where recipes run in it. (`python -m benchmarks.recipe_apart`)")
    fill(PAGE, "recipe apart", told)
    print(told)


def own_memory(torch: str) -> str:
    """Of a site's process that has imported what it needs."""
    done = subprocess.run([sys.executable, "-c", IMPORTED.format(torch=torch)], check=True, capture_output=True, text=True)
    return done.stdout.split()[0]


def measured(width: int, turns: int) -> dict[str, float]:
    """Of one model, in both places."""
    generator = np.random.default_rng(width)
    train_rows, held_out = (Examples(generator.normal(size=(count, COLUMNS)).astype(np.float32),
                                     generator.integers(0, 2, count)) for count in (ROWS, HELD_OUT))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.py"
        file.write_text(TEXT.format(columns=COLUMNS, width=width))
        here = load_recipe(file)
        host = Host(file, hashlib.sha256(file.read_bytes()).hexdigest(), Limits(), "cpu")
        began = time.perf_counter()
        apart = host.recipe()
        base = initial_tensors(here, 0)
        a_round(apart, base, train_rows, held_out)
        child = psutil.Process(host._child._process.pid)  # type: ignore[union-attr]
        found = {"numbers": sum(array.size for array in base.values()), "start wall": time.perf_counter() - began,
                 "start cpu": sum(child.cpu_times()[:2])}
        for _ in range(turns):
            for name, recipe in (("here", here), ("apart", apart)):
                cpu, wall = timed(lambda recipe=recipe: a_round(recipe, base, train_rows, held_out), child)  # type: ignore[misc]
                found[f"{name} cpu"] = min(cpu, found.get(f"{name} cpu", cpu))
                found[f"{name} wall"] = min(wall, found.get(f"{name} wall", wall))
        found["memory"] = child.memory_full_info().uss / 1e6
        host.rest()
    return found


def timed(work: Callable[[], None], child: psutil.Process) -> tuple[float, float]:
    """Processor seconds of both processes, and seconds."""
    before, began = time.process_time() + sum(child.cpu_times()[:2]), time.perf_counter()
    work()
    return time.process_time() + sum(child.cpu_times()[:2]) - before, time.perf_counter() - began


def a_round(recipe: Recipe, base: dict[str, np.ndarray], rows: Examples, held_out: Examples) -> None:
    """What a site computes in one."""
    training = LocalTraining(local_steps=STEPS, batch_size=BATCH, learning_rate=0.1)
    mechanism = DpSgd(noise_multiplier=1.0, clip_norm=1.0, sampling_rate=BATCH / ROWS, steps=STEPS)
    scored_rows(recipe, base, held_out)
    train(recipe, Lesson(base, rows), training, mechanism, stream(bytes(32), b"benchmark"), UNGUARDED)


if __name__ == "__main__":
    main()
