"""What DP-SGD costs beside plain steps, for every kind of model: CPU time of one step, and ratios, measured in one run.

    python -m benchmarks.private_steps
    python -m benchmarks.private_steps --floor LSTM GRU     # what the parts of a live step take, for some of the models

A live site's step: gradients of a Poisson batch, clipped in whole cells and noised exactly, or plain. A simulated one: the
same model, summed in float32. One thread; plain and private steps take turns. The floor: one pass from which every row's
gradient follows, its length, the cut to whole cells with the exact sum, exact noise, and noise as `torch.randn` draws it; and
Opacus' step (hooks), if it is installed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import nn

from benchmarks.pages import table
from fedround.learning.batch import Batch
from fedround.learning.gradients import Clip, RowGradients, clipped_sum, gradient_sum
from fedround.learning.objective import Objective
from fedround.learning.tape import Tape
from fedround.learning.tasks import Classify
from fedround.privacy.noise import FINE, stream
from fedround.simulation import sums

WORDS, PLACES, CLASSES, EXPECTED = 64, 32, 10, 128
REPEATS, STEPS = 5, 5


class Sequences(nn.Module):
    """Words, a layer that looks at all of them, and one answer."""

    def __init__(self, layer: nn.Module, width: int):
        super().__init__()
        self.embed, self.layer, self.out = nn.Embedding(WORDS, 32), layer, nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, places) to (rows, classes)."""
        told = self.layer(self.embed(x))
        logits: torch.Tensor = self.out(told[0][:, -1] if isinstance(told, tuple) else told.mean(1))
        return logits


def _numbers(*shape: int) -> Callable[[int], torch.Tensor]:
    return lambda rows: torch.randn(rows, *shape)


def _words(rows: int) -> torch.Tensor:
    return torch.randint(0, WORDS, (rows, PLACES))


Model = tuple[Callable[[], nn.Module], Callable[[int], torch.Tensor]]
MODELS: dict[str, Model] = {
    "MLP 23-64-32-10": (lambda: nn.Sequential(nn.Linear(23, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(),
                                              nn.Linear(32, CLASSES)), _numbers(23)),
    "MLP 784-200-200-10": (lambda: nn.Sequential(nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(),
                                                 nn.Linear(200, CLASSES)), _numbers(784)),
    "CNN of the MNIST example": (lambda: nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, CLASSES)), _numbers(1, 28, 28)),
    "transformer layer, 32 words": (lambda: Sequences(
        nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True), 32), _words),
    "LSTM, 32 words": (lambda: Sequences(nn.LSTM(32, 64, batch_first=True), 64), _words),
    "GRU, 32 words": (lambda: Sequences(nn.GRU(32, 64, batch_first=True), 64), _words),
}


def main() -> None:
    """Measure, print."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description="What DP-SGD costs beside plain steps.")
    parser.add_argument("--floor", nargs="*", metavar="MODEL", help="the parts of a step, of models whose names begin so")
    asked = parser.parse_args()
    if asked.floor is not None:
        chosen = [name for name in MODELS if name.startswith(tuple(asked.floor) or "")]
        print(table(["model", "plain, ms", *(f"{part}, × plain" for part in PARTS)], [floor(name) for name in chosen]))
        return
    heads = ["model", "parameters", "rows at once", "plain, ms", "private, ms", "noise, ms", "× plain", "simulated × plain"]
    print(table(heads, [measure(name) for name in MODELS]))


def measure(name: str, expected: int = EXPECTED) -> list[str]:
    """One line of the table."""
    torch.manual_seed(0)
    make, draw = MODELS[name]
    model = make().requires_grad_(False)
    objective, parameters = Objective(model, Classify(classes=CLASSES)), dict(model.named_parameters())
    sizes = np.random.default_rng(0).binomial(10 * expected, 0.1, STEPS).tolist()
    batches = [Batch({"x": draw(rows)}, {"y": torch.randint(0, CLASSES, (rows,))}) for rows in sizes]
    of_rows, source = RowGradients.tried(objective, parameters, batches[0]), stream(bytes(32), b"benchmark")
    chunk, size = of_rows.chunk_for(expected), sum(part.numel() for part in parameters.values())
    tape = Tape(lambda weights, row: objective.losses(weights, row.at(None)).sum())
    stacked = {part: value[None] for part, value in parameters.items()}

    def simulated(private: bool) -> None:
        for batch in batches:
            rows = Batch(*({key: part[None] for key, part in side.items()} for side in batch)), torch.ones(1, batch.rows)
            sums.clipped_sum(tape, stacked, rows, 1.0) if private else sums.plain_sum(objective, stacked, rows)

    took = least({
        "plain": lambda: [gradient_sum(objective, parameters, batch) for batch in batches],
        "private": lambda: [clipped_sum(of_rows, parameters, batch, Clip(1.0, 1 / FINE), chunk=chunk) for batch in batches],
        "noise": lambda: [source.cells(size) for _ in batches],
        "simulated": partial(simulated, False), "simulated, private": partial(simulated, True)})
    live = (took["private"] + took["noise"]) / took["plain"]
    return [name, f"{size:,}", str(chunk), *(f"{took[what]:.2f}" for what in ("plain", "private", "noise")), f"{live:.1f}",
            f"{took['simulated, private'] / took['simulated']:.1f}"]


PARTS = ("one pass", "lengths", "cut and sum", "exact noise", "`torch.randn`", "all of ours", "Opacus")


def floor(name: str, rows: int = EXPECTED) -> list[str]:
    """One line: what each part of a live step takes, beside a plain step on as many rows."""
    torch.manual_seed(0)
    make, draw = MODELS[name]
    model = make().requires_grad_(False)
    objective, parameters = Objective(model, Classify(classes=CLASSES)), dict(model.named_parameters())
    batch = Batch({"x": draw(rows)}, {"y": torch.randint(0, CLASSES, (rows,))})
    of_rows, source = RowGradients.tried(objective, parameters, batch), stream(bytes(32), b"benchmark")
    chunk, size = of_rows.chunk_for(rows), sum(part.numel() for part in parameters.values())
    chunks = [batch.at(slice(start, start + chunk)).filled(chunk) for start in range(0, rows, chunk)]
    found, share_B = of_rows(parameters, chunks[0]), torch.full((chunk,), 0.1 * FINE, dtype=torch.float64)
    totals = {part: torch.zeros(value.numel(), dtype=torch.int64) for part, value in parameters.items()}
    took = least({
        "plain": lambda: gradient_sum(objective, parameters, batch),
        "one pass": lambda: [of_rows(parameters, some) for some in chunks],
        "lengths": lambda: [part.squares() for part in found.values() for _ in chunks],
        "cut and sum": lambda: [part.add_to(totals[where], share_B, FINE) for where, part in found.items() for _ in chunks],
        "exact noise": lambda: source.cells(size), "`torch.randn`": lambda: torch.randn(size),
        "private": lambda: clipped_sum(of_rows, parameters, batch, Clip(1.0, 1 / FINE), chunk=chunk),
        **_opacus(make(), batch)}, steps=1, repeats=8 * REPEATS)
    took["all of ours"] = took["private"] + took["exact noise"]
    return [name, f"{took['plain']:.2f}", *(f"{took[part] / took['plain']:.2f}" if part in took else "" for part in PARTS)]


def _opacus(model: nn.Module, batch: Batch) -> dict[str, Callable[[], object]]:
    """Its step, with its own recurrent layers in place of torch's; nothing, if it is not there or cannot take the model."""
    try:
        from opacus.grad_sample import GradSampleModule
        from opacus.optimizers import DPOptimizer
        from opacus.validators import ModuleValidator

        sampled = GradSampleModule(ModuleValidator.fix(model), loss_reduction="sum")
    except (ImportError, NotImplementedError):
        return {}
    optimizer = DPOptimizer(torch.optim.SGD(sampled.parameters(), lr=0.1), noise_multiplier=1.0, max_grad_norm=1.0,
                            expected_batch_size=batch.rows)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(sampled(batch.inputs["x"]), batch.targets["y"], reduction="sum").backward()
        optimizer.step()

    return {"Opacus": step}


def least(work: dict[str, Callable[[], object]], steps: int = STEPS, repeats: int = REPEATS) -> dict[str, float]:
    """The least CPU milliseconds of a step, by what is done; they take turns."""
    took: dict[str, list[float]] = {what: [] for what in work}
    for _ in range(repeats + 1):
        for what, do in work.items():
            begun = time.process_time()
            do()
            took[what].append(1000 * (time.process_time() - begun) / steps)
    return {what: min(found[1:]) for what, found in took.items()}


if __name__ == "__main__":
    main()
