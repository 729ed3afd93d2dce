"""A transformer of 100 million parameters in a round: all of it, or adapters and a head (LoRA) on a base that is frozen.

    python -m benchmarks.adapters                           # 3 sites; needs 2.2 GB
    python -m benchmarks.adapters --kinds adapters all      # a site that trains all of it was stopped at 12.7 GB

The model is made here, at random: what is measured is what a round costs, not what the model knows. Each site is a process
of its own. It takes one step of DP-SGD on a batch of about four sentences, each clipped by itself, noises, encodes and hashes
its update. The server, a process too, reads the updates, takes their mean and its step, and encodes the next model.
Prefect, store and reports are left out: what they cost is in `benchmarks.large_model`.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fedround import codec, optimizers
from fedround.aggregation.engine import FileNumbers, Row, aggregate
from fedround.aggregation.rules import WeightedMean
from fedround.aggregation.spec import Aggregation
from fedround.learning.examples import Examples
from fedround.learning.guard import UNGUARDED
from fedround.learning.lesson import Lesson
from fedround.learning.recipe import Recipe, initial
from fedround.learning.spec import FedAvg, LocalTraining
from fedround.learning.train import train
from fedround.privacy.noise import stream
from fedround.privacy.spec import DpSgd

WORDS, LENGTH, WIDTH, HEADS, BLOCKS, RANK = 20_000, 32, 768, 12, 12, 8
ROWS, BATCH = 16, 4


def build(kind: str) -> Any:
    """The model with all of it to train, or with adapters on queries and values and a head."""
    import torch
    from torch import nn

    from fedround.learning.lora import adapt

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
            self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.inner, self.outer = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x: Any) -> Any:
            h = self.first(x)
            q, k, v = (part(h).unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2) for part in (
                self.query, self.key, self.value))
            weights = torch.softmax(q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5, dim=-1)
            x = x + self.out((weights @ v).transpose(1, 2).flatten(2))
            return x + self.outer(torch.relu(self.inner(self.second(x))))

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
            self.blocks, self.head = nn.Sequential(*(Block() for _ in range(BLOCKS))), nn.Linear(WIDTH, 1)

        def forward(self, rows: Any) -> Any:
            x = self.words(rows.long()) + self.places(torch.arange(LENGTH))
            return self.head(self.blocks(x).mean(dim=1))

    return adapt(Transformer(), ["*.query", "*.value"], rank=RANK, also=["head.*"]) if kind == "adapters" else Transformer()


def main() -> None:
    """Every site and the server for both kinds, one process after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--kinds", nargs="*", choices=("adapters", "all"), default=("adapters",))
    parser.add_argument("--folder", type=Path, help="where there is space")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step is not None:
        kind, who = options.step
        print(json.dumps(server(kind, options.folder, options.sites) if who == "server"
                         else site(kind, int(who), options.folder)))
        return
    print("| | numbers that train | bytes an update | bytes fetched once | a site: CPU s, MB | server: CPU s, MB |")
    print("|---|---|---|---|---|---|")
    for kind in options.kinds:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            told = [_apart(kind, str(place), Path(folder), options.sites) for place in range(options.sites)]
            last = _apart(kind, "server", Path(folder), options.sites)
        cpu, held = (max(one[name] for one in told) for name in ("cpu_s", "held_mb"))
        print(f"| {kind} | {told[0]['numbers']:,} | {told[0]['sent']:,} | {told[0]['once']:,} | {cpu:.1f}, {held:.0f} | "
              f"{last['cpu_s']:.1f}, {last['held_mb']:.0f} |", flush=True)


def _apart(kind: str, who: str, folder: Path, sites: int) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "benchmarks.adapters", "--step", kind, who, "--folder", str(folder),
                           "--sites", str(sites)], check=True, stdout=subprocess.PIPE)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def recipe_of(kind: str) -> Recipe:
    """As a federation would approve one."""
    return Recipe(f"transformer-{kind}", "0" * 64, lambda: build(kind), lambda rows: rows)


def site(kind: str, place: int, folder: Path) -> dict[str, Any]:
    """One step, and the update's file."""
    recipe, generator = recipe_of(kind), np.random.default_rng(place)
    base, rest = initial(recipe, 0)
    rows = Examples(generator.integers(0, WORDS, (ROWS, LENGTH)).astype(np.float32), generator.integers(0, 2, ROWS))
    training = LocalTraining(local_steps=1, batch_size=BATCH, learning_rate=0.1)
    mechanism = DpSgd(noise_multiplier=1.0, clip_norm=1.0, sampling_rate=BATCH / ROWS, steps=1)
    sent = b""

    def work() -> None:
        nonlocal sent
        trained = train(recipe, Lesson(base, rows, rest), training, mechanism, stream(bytes([place]) * 32, b"a plan"),
                        UNGUARDED)
        sent = codec.encode(trained.delta)
        hashlib.sha256(sent).digest()
        (folder / f"{place}").write_bytes(sent)

    spent = _spent(work)
    frozen = codec.size_bytes(codec.schema_of(rest.frozen)) if rest.frozen else 0
    return {"numbers": codec.coordinates(codec.schema_of(base)), "sent": len(sent), "once": frozen, **spent}


def server(kind: str, folder: Path, sites: int) -> dict[str, Any]:
    """From the updates' files to the next model's."""
    base, _ = initial(recipe_of(kind), 0)
    schema = codec.schema_of(base)

    def work() -> None:
        rows = [Row(f"site-{place}", 1.0, FileNumbers(folder / f"{place}", len(codec.header(schema))))
                for place in range(sites)]
        done = aggregate(rows, Aggregation(rule=WeightedMean()), codec.coordinates(schema), seed=bytes(32))
        model, _ = optimizers.step(base, None, done.delta_D, FedAvg(learning_rate=1.0, momentum=0.0))
        hashlib.sha256(codec.encode(model)).digest()

    return _spent(work)


def _spent(work: Callable[[], None]) -> dict[str, float]:
    """CPU seconds, and the most that the process has held, torch and the model among it."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.monotonic()
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {"cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "wall_s": time.monotonic() - began, "held_mb": int(held.split()[1]) * 1024 / 1e6}


if __name__ == "__main__":
    main()
