"""What groups' own thresholds change, and cost: chosen on the public test set, judged on the banks' held-out rows.

    python -m benchmarks.fair_thresholds [--seeds 3]

The banks' campaign with its agreed privacy. Gaps and accuracy are exact, of rows on which nothing was chosen.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from fedround.learning.evaluate import scores
from fedround.statistics import Groups
from fedround_examples.banks.split import STORY
from fedround_examples.rivals import federated
from validation.group_gaps import shares
from validation.group_thresholds import Equalised, equalised

COLUMN = "EDUCATION"
MEASURES: tuple[Equalised, ...] = ("demographic_parity", "equal_opportunity")


def effects(seed: int) -> Iterator[tuple[str, float, float, float, float]]:
    """With which thresholds, and: accuracy, share of yes, gap in selection, gap in recall."""
    recipe, settings, parts = STORY.recipe(), STORY.settings(), STORY.split()
    groups: Groups = settings.groups  # type: ignore[assignment]
    of = next(one.of for one in groups.watched if one.of.column == COLUMN)
    model = federated(recipe, {bank.name: recipe.encode(bank.train) for bank in parts.banks}, settings, seed=seed)
    public = scores(recipe, model, recipe.encode(parts.public_test))
    public_N = of.group(parts.public_test[COLUMN].to_numpy())
    held_out = [bank.validation for bank in parts.banks]
    told = [scores(recipe, model, recipe.encode(rows)) for rows in held_out]
    chance_N, truth_N = np.concatenate([one["score"] for one in told]), np.concatenate([one["truth"] for one in told])
    group_N, count = of.group(np.concatenate([rows[COLUMN].to_numpy() for rows in held_out])), len(of.labels)
    ways = {"one for all": (groups.threshold,) * count, **{
        measure.replace("_", " "): equalised(public["score"], public["truth"], public_N, count, groups.threshold, measure)
        for measure in MEASURES}}
    for way, at in ways.items():
        yes_N = (chance_N >= np.array(at)[group_N]).astype(np.int64)
        cells = np.bincount(np.ravel_multi_index((group_N, truth_N, yes_N), (count, 2, 2)), minlength=4 * count)
        rates = shares(cells.reshape(count, 2, 2)[:-1].astype(np.float64))     # the others are few
        yield (way, float((yes_N == truth_N).mean()), float(yes_N.mean()), float(np.ptp(rates["selection"])),
               float(np.ptp(rates["recall"])))


def main() -> None:
    """Print the table of docs/fairness.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    found: dict[str, list[tuple[float, ...]]] = {}
    for seed in range(parser.parse_args().seeds):
        for way, *numbers in effects(seed):
            found.setdefault(way, []).append(tuple(numbers))
    print(f"| thresholds by {COLUMN}, equal in | accuracy | share of yes | gap in selection | gap in recall |")
    print("|---|---|---|---|---|")
    for way, rows in found.items():
        mean, spread = np.mean(rows, axis=0), np.std(rows, axis=0)
        print(f"| {way} | " + " | ".join(f"{one:.3f} ± {off:.3f}" for one, off in zip(mean, spread, strict=True)) + " |")


if __name__ == "__main__":
    main()
