"""Steps on an accelerator beside steps on the processor: speed, and whether the results agree.

    python -m benchmarks.device                  # the device that "auto" finds; some minutes
    python -m benchmarks.device --device cuda:1

For every kind of model: seconds of private and of plain training on both, the same secret, the same batches and noise. Exits
with 1 if a change differs by more than the stated tolerance, if batches or noise were drawn otherwise, or if one row moves a
sum by more than the clip norm, or by anything but its own part, on the device.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
import torch

from benchmarks.private_steps import CLASSES, MODELS
from fedround.codec import flatten
from fedround.learning.batch import batch_of
from fedround.learning.device import TOLERANCE, OnDevice, chosen, described, working_on
from fedround.learning.examples import Examples
from fedround.learning.gradients import Clip, RowGradients, clipped_sum
from fedround.learning.guard import UNGUARDED
from fedround.learning.lesson import Lesson
from fedround.learning.objective import Objective
from fedround.learning.recipe import Recipe, initial_tensors
from fedround.learning.spec import LocalTraining
from fedround.learning.tasks import Classify
from fedround.learning.train import train
from fedround.privacy.noise import FINE, stream
from fedround.privacy.spec import DpSgd, NoMechanism

ROWS, BATCH, STEPS = 2048, 256, 4
CLIP = Clip(1.0, 1.0 / FINE)


class Counted:
    """A site's stream that remembers what it gave."""

    def __init__(self) -> None:
        self._stream, self.sums = stream(bytes(32), b"device"), list[float]()

    def random(self, size: int) -> np.ndarray:
        """As the stream."""
        return self._told(self._stream.random(size))

    def normal(self, scale: float, size: int) -> np.ndarray:
        """As the stream."""
        return self._told(self._stream.normal(scale, size))

    def cells(self, size: int) -> np.ndarray:
        """As the stream."""
        return self._told(self._stream.cells(size))

    def _told(self, drawn: np.ndarray) -> np.ndarray:
        self.sums.append(float(drawn.sum()))
        return drawn


def main() -> None:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    name = parser.parse_args().device
    print(f"torch {torch.__version__}; {described(name)}; the processor computes with {torch.get_num_threads()} threads\n")
    print("| model | private: processor s | device s | times | plain: processor s | device s | times | apart, at most |")
    print("| --- | --: | --: | --: | --: | --: | --: | --: |")
    failed = []
    for model in MODELS:
        recipe, examples = recipe_of(model), rows_of(model)
        cells, worst = [model], 0.0
        for mechanism in (DpSgd(noise_multiplier=1.0, clip_norm=1.0, sampling_rate=BATCH / ROWS, steps=STEPS), NoMechanism()):
            timed(recipe, examples, mechanism, name, steps=1)       # libraries are loaded, kernels are chosen
            (one, slow, here), (other, fast, there) = (timed(recipe, examples, mechanism, where) for where in ("cpu", name))
            cells += [f"{slow:.2f}", f"{fast:.2f}", f"{slow / fast:.1f}"]
            worst = max(worst, float(np.linalg.norm(other - one) / np.linalg.norm(one)))
            failed += [f"{model}: draws differ"] if here != there else []
        failed += [f"{model}: results are {worst:.1e} apart"] if worst > TOLERANCE else []
        failed += [f"{model}: {fault}" for fault in faults(recipe, examples, name)]
        print(f"| {' | '.join([*cells, f'{worst:.1e}'])} |", flush=True)
    well = "the same draws everywhere; every row's part is the same in any company, and no longer than the clip norm"
    print("\n" + ("\n".join(failed) or well))
    sys.exit(1 if failed else 0)


def timed(recipe: Recipe, examples: Examples, mechanism: Any, device: str, steps: int = STEPS) -> tuple[Any, float, Any]:
    """The change, how long it took, and what was drawn."""
    if isinstance(mechanism, DpSgd):
        mechanism = mechanism.model_copy(update={"steps": steps})
    training, draws = LocalTraining(local_steps=steps, batch_size=BATCH, learning_rate=0.05), Counted()
    begun = time.perf_counter()
    trained = train(recipe, Lesson(initial_tensors(recipe, 0), examples, device=device), training, mechanism, draws,
                    UNGUARDED)
    return flatten(trained.delta), time.perf_counter() - begun, draws.sums


def faults(recipe: Recipe, examples: Examples, device: str) -> list[str]:
    """What the law of a row's part says, on the device."""
    place, some = chosen(device), examples.at(slice(0, 65))
    model = recipe.build_model().to(place).requires_grad_(False)
    parameters = OnDevice({name: part.cpu().numpy() for name, part in model.named_parameters()}, place).parameters
    batch, found = batch_of(some).to(place), []
    with working_on(place):
        of_rows = RowGradients.tried(Objective(model, Classify(classes=CLASSES)), parameters, batch)

        def summed(counts: np.ndarray) -> np.ndarray:
            return clipped_sum(of_rows, parameters, batch, CLIP, counts_B=torch.from_numpy(counts).to(place), chunk=64)[0]

        whole = summed(np.ones(65, bool))
        for gone in (0, 40, 64):
            only = np.arange(65) == gone
            part, without = summed(only), summed(~only)
            if not np.array_equal(whole - without, part):
                found.append("a row that leaves moves the sum by something else than its part")
            if np.linalg.norm(part) > CLIP.norm / CLIP.cell:
                found.append("a row's part is longer than the clip norm")
    return found


def recipe_of(model: str) -> Recipe:
    """The model as a recipe."""
    return Recipe(model.lower().replace(" ", "-"), "0" * 64, MODELS[model][0], lambda rows: rows, Classify(classes=CLASSES))


def rows_of(model: str) -> Examples:
    """Made-up rows."""
    torch.manual_seed(1)
    return Examples(MODELS[model][1](ROWS).numpy(), np.arange(ROWS, dtype=np.int64) % CLASSES)


if __name__ == "__main__":
    main()
