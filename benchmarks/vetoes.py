"""What a veto before a model is used can see of a backdoor: counts per class, canaries, and the search for a trigger.

    python -m benchmarks.vetoes                     # both tables: two CPU minutes

The federation and the backdoor of `benchmarks.patient`, behind the default; two liars who follow the protocol, unless nobody
lies. The search (`fedround.learning.triggers`) sees 60 public images, which no site has; canaries and classes are judged on
the test set.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from benchmarks import digits
from benchmarks.contenders import DEFAULT
from benchmarks.patient import SQUARE, Judged, Trigger, backdoor, raised
from fedround.learning.triggers import strongest_mark

SEEDS = (0, 1, 2, 3, 4, 5)
CLASS_SEEDS = range(20)
NOISE = 0.1
TRIGGERS: dict[str, tuple[Trigger, int]] = {
    "nobody lies": (SQUARE, 0), "a square of 4 pixels": (SQUARE, 2), "4 pixels apart": ((0, 23, 40, 63), 2),
    "8 pixels apart": ((1, 8, 18, 27, 37, 46, 55, 60), 2),
    "16 pixels apart": ((0, 5, 10, 15, 17, 22, 24, 29, 35, 38, 41, 47, 48, 53, 58, 63), 2)}


def searched(model_D: digits.Numbers, most_features: int) -> float:
    """The share of the public images that the strongest mark of so many pixels turns to one class."""
    def chances(images: digits.Numbers) -> digits.Numbers:
        found = raised(model_D, images)
        found = np.exp(found - found.max(axis=-1, keepdims=True))
        sure: digits.Numbers = found / found.sum(axis=-1, keepdims=True)
        return sure

    public = digits.load((0,)).images[:digits.ROOT_EXAMPLES]
    found = strongest_mark(chances, public, most_features=most_features)
    return 0.0 if found is None else found.share


def search_table(seeds: Sequence[int]) -> list[str]:
    """Every run by itself, percent."""
    lines = ["| trigger | accuracy | success | largest canary | search, 4 pixels | search, 8 pixels |",
             "|---|--:|--:|--:|--:|--:|"]
    for name, (trigger, liars) in TRIGGERS.items():
        found = [backdoor(DEFAULT, liars, 1.0, NOISE, seed, trigger=trigger) for seed in seeds]
        columns = ([one.accuracy for one in found], [one.success for one in found], [one.canary for one in found],
                   [searched(one.model_D, 4) for one in found], [searched(one.model_D, 8) for one in found])
        lines.append(f"| {name} | {100 * np.mean(columns[0]):.1f} | "
                     + " | ".join(f"{100 * np.mean(values):.0f} ({100 * min(values):.0f} to {100 * max(values):.0f})"
                                  for values in columns[1:]) + " |")
    return lines


def class_table(seeds: Sequence[int]) -> list[str]:
    """How much the class that lost most lost beside the model before: an honest run, and one with two liars.

    As seen by who knows all test images' labels without noise; sites with noised counts of their own see less.
    """
    def lost(before: Judged, after: Judged) -> float:
        return 100 * float((before.by_class - after.by_class).max())

    honest, lied = [], []
    for seed in seeds:
        before = backdoor(DEFAULT, 0, 1.0, NOISE, seed)
        honest.append(lost(before, backdoor(DEFAULT, 0, 1.0, NOISE, seed, draws=1)))
        lied.append(lost(before, backdoor(DEFAULT, 2, 1.0, NOISE, seed, draws=1)))
    above = sum(value > max(honest) for value in lied)
    order = float(np.mean([[(after > before) + (after == before) / 2 for before in honest] for after in lied]))
    said = (f"{above} of {len(lied)} attacked runs lose more than every honest one; of {100 * order:.0f} % of pairs the "
            "attacked run loses more (50: no difference)")
    return ["| | mean | smallest | largest |", "|---|--:|--:|--:|",
            *(f"| {name} | {np.mean(values):.1f} | {min(values):.1f} | {max(values):.1f} |"
              for name, values in (("nobody lies", honest), ("two liars", lied))),
            "", said]


def main() -> None:
    """Print the tables, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("search", "classes"))
    asked = parser.parse_args()
    if asked.only in {None, "search"}:
        print("\n".join(search_table(SEEDS)), end="\n\n", flush=True)
    if asked.only in {None, "classes"}:
        print("\n".join(class_table(CLASS_SEEDS)), flush=True)


if __name__ == "__main__":
    main()
