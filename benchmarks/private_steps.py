"""What DP-SGD costs beside plain steps, for every kind of model: CPU time of one step, and ratios, measured in one run.

    python -m benchmarks.private_steps

A live site's step: gradients of a Poisson batch, clipped in whole cells and noised exactly, or plain. A simulated one: the
same model, summed in float32. One thread; plain and private steps take turns.
"""

from __future__ import annotations

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


def least(work: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The least CPU milliseconds of a step, by what is done; they take turns."""
    took: dict[str, list[float]] = {what: [] for what in work}
    for _ in range(REPEATS + 1):
        for what, do in work.items():
            begun = time.process_time()
            do()
            took[what].append(1000 * (time.process_time() - begun) / STEPS)
    return {what: min(found[1:]) for what, found in took.items()}


if __name__ == "__main__":
    main()
